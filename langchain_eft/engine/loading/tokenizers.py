"""The tokenizers of a recipe, and the meaning of token ids in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from langchain_eft.engine.errors import CheckpointNotFoundError, reading
from langchain_eft.engine.loading import vocabulary
from langchain_eft.engine.loading.checkpoints import Checkpoint, fetch_checkpoint
from langchain_eft.engine.loading.configuration import read_stop_ids, refusing_foreign_code
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.engine.progress import silent
from langchain_eft.engine.recipe.behaviors import Recipe, read_template


@dataclass(frozen=True)
class RecipeTokenizers:
    """The tokenizers of a recipe."""

    base: Any  # the base's tokenizer, with the template that renders conversations
    # the tokenizer of F, or None if F has none, for each behavior whose F has other weights than S
    tuned: dict[str, Any]
    small: list[tuple[str, Any]]  # name and tokenizer of each small model that has a tokenizer


def read_tokenizers(recipe: Recipe, checkpoints: RecipeCheckpoints) -> RecipeTokenizers:
    """Load every tokenizer of a recipe and choose the chat template.

    Raises:
        CheckpointNotFoundError: The base has no tokenizer.
    """
    read_once = cache(_read_tokenizer)
    base = read_once(checkpoints.base)
    if base is None:
        raise CheckpointNotFoundError(
            f"{checkpoints.base.name!r} holds no tokenizer that transformers can load: add its "
            "tokenizer.json."
        )
    tuned = {}
    for name, delta in recipe.behaviors.items():
        pair = checkpoints.pairs[name]
        if pair.adapter is not None:
            tuned[name] = read_once(Checkpoint(str(pair.adapter), pair.adapter))
        elif delta.has_weights:
            tuned[name] = read_once(pair.tuned)
    small = [
        (checkpoint.name, tokenizer)
        for checkpoint in checkpoints.unique[1:]
        if (tokenizer := read_once(checkpoint)) is not None
    ]
    base.chat_template = _chat_template(recipe, base, tuned)
    return RecipeTokenizers(base, tuned, small)


def _chat_template(recipe: Recipe, base: Any, tuned: dict[str, Any]) -> Any:
    """The first that exists of the recipe's, a tuned model's and the base's template, and `base_template`."""
    if recipe.chat_template is not None:
        return recipe.chat_template.read_text(encoding="utf-8")
    tuned_templates = (t.chat_template for t in tuned.values() if t is not None and t.chat_template)
    base_template = None if recipe.base_template is None else read_template(recipe.base_template)
    return next(tuned_templates, base.chat_template or base_template)


def _read_tokenizer(checkpoint: Checkpoint) -> Any:
    """A model's tokenizer, or None if it has none. Of a hub model, only the tokenizer is fetched."""
    path, hub = checkpoint.path, checkpoint.hub
    if path is not None and path.is_dir():
        return read_tokenizer(path)
    if hub is None or hub.is_gguf:
        return read_tokenizer(checkpoint.fetch(silent, weights=False))
    try:
        with refusing_foreign_code(checkpoint.name):
            return AutoTokenizer.from_pretrained(
                hub.repo, revision=hub.revision, subfolder=hub.path, trust_remote_code=False
            )
    except (OSError, ValueError):
        return None


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, or None if it holds none.

    Raises:
        CheckpointNotFoundError: Its files are damaged.
        UnsupportedModelError: It needs code of its own.
    """
    if not any((folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json")):
        return None
    with (
        reading(folder, "its tokenizer's files are damaged: fetch them again"),
        refusing_foreign_code(str(folder)),
    ):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


@lru_cache(maxsize=8)
def load_tokenizer(recipe: Recipe) -> Any:
    """The tokenizer of a recipe's base, with the template that renders conversations. No weights are loaded.

    Raises:
        CheckpointNotFoundError: A model cannot be found.
    """
    checkpoints = RecipeCheckpoints.find(recipe, lambda adapter: Path(fetch_checkpoint(adapter, silent)))
    return read_tokenizers(recipe, checkpoints).base


@dataclass(frozen=True)
class TokenMeanings:
    """Sets of token ids with a meaning in a recipe."""

    common: frozenset[int]  # ids that mean the same token in all models
    end: frozenset[int]  # ids that end an answer
    unscaled: frozenset[int]  # ids whose probability is not scaled by L / S

    @classmethod
    def compare(
        cls,
        recipe: Recipe,
        checkpoints: RecipeCheckpoints,
        tokenizers: RecipeTokenizers,
    ) -> TokenMeanings:
        """Compare the vocabularies of all models and collect the tokens that end answers."""
        base = tokenizers.base
        common = vocabulary.common_ids(base, tokenizers.small, checkpoints.base.name)
        base_stops = _stop_ids(checkpoints.base, base)
        answer_endings = []
        for name, tuned in tokenizers.tuned.items():
            pair = checkpoints.pairs[name]
            if pair.tuned == checkpoints.base:
                continue
            has_template = tuned is not None and tuned.chat_template and not recipe.chat_template
            template_tokens = vocabulary.template_tokens(tuned if has_template else base)
            stops = _stop_ids(None if pair.adapter else pair.tuned, tuned)
            answer_endings.append(vocabulary.AnswerEndings(name, template_tokens, stops))
        # A base that reads a transcript sees no end-of-turn tokens, whatever token ends its texts.
        turn_stops = () if recipe.base_template else base_stops
        return cls(
            common,
            vocabulary.end_ids(base_stops, answer_endings, common),
            vocabulary.unscaled_ids(turn_stops, answer_endings, common)
            if recipe.unscaled_tokens is None
            else vocabulary.ids_of(recipe.unscaled_tokens, base) & common,
        )


def _stop_ids(checkpoint: Checkpoint | None, tokenizer: Any) -> frozenset[int]:
    """Ids that end a text by a model's generation config or its tokenizer; either may be None."""
    configured = frozenset() if checkpoint is None else read_stop_ids(checkpoint)
    end = getattr(tokenizer, "eos_token_id", None)
    return configured if end is None else configured | {end}
