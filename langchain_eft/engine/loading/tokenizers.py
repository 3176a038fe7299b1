"""The tokenizers of a recipe, and what token ids mean in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from langchain_eft.engine.errors import CheckpointNotFoundError
from langchain_eft.engine.loading import vocabulary
from langchain_eft.engine.loading.checkpoints import Checkpoint, fetch_checkpoint
from langchain_eft.engine.loading.layout import Layout
from langchain_eft.engine.recipe.behaviors import Recipe, read_template


@dataclass(frozen=True)
class RecipeTokenizers:
    """The tokenizers of a recipe.

    Attributes:
        main: The base's, with the template that conversations are rendered with.
        tuned: Of each behavior with weights of its own, F's, or None where it brings none.
        small: Names and tokenizers of the small models that have one.
    """

    main: Any
    tuned: dict[str, Any]
    small: list[tuple[str, Any]]


def read_tokenizers(recipe: Recipe, layout: Layout) -> RecipeTokenizers:
    """Load every tokenizer of a recipe and choose the chat template.

    Raises:
        CheckpointNotFoundError: The base has no tokenizer.
    """
    read = cache(_read_tokenizer)
    main = read(layout.base)
    if main is None:
        raise CheckpointNotFoundError(
            f"{layout.base.name!r} holds no tokenizer that transformers can load: add its tokenizer.json."
        )
    tuned = {}
    for name, delta in recipe.behaviors.items():
        pair = layout.pairs[name]
        if pair.adapter is not None:
            tuned[name] = read(Checkpoint(str(pair.adapter), pair.adapter))
        elif delta.has_weights:
            tuned[name] = read(pair.tuned)
    small = [(place.name, found) for place in layout.places[1:] if (found := read(place)) is not None]
    main.chat_template = _template(recipe, main, tuned)
    return RecipeTokenizers(main, tuned, small)


def _template(recipe: Recipe, main: Any, tuned: dict[str, Any]) -> Any:
    """The recipe's own template, or that of the first tuned model that has one, or the base's, or for it."""
    if recipe.chat_template is not None:
        return recipe.chat_template.read_text(encoding="utf-8")
    own = (t.chat_template for t in tuned.values() if t is not None and t.chat_template)
    plain = None if recipe.base_template is None else read_template(recipe.base_template)
    return next(own, main.chat_template or plain)


def _read_tokenizer(place: Checkpoint) -> Any:
    """A model's tokenizer, or None where it has none; of a hub model nothing else is fetched."""
    if place.path is not None and place.path.is_dir():
        names = ("tokenizer_config.json", "tokenizer.json")
        return (
            AutoTokenizer.from_pretrained(place.path)
            if any((place.path / n).is_file() for n in names)
            else None
        )
    if place.hub is None or place.hub.is_gguf:
        return AutoTokenizer.from_pretrained(place.fetch(lambda _: None))
    try:
        return AutoTokenizer.from_pretrained(
            place.hub.repo, revision=place.hub.revision, subfolder=place.hub.path
        )
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=8)
def load_tokenizer(recipe: Recipe) -> Any:
    """The tokenizer of a recipe's base, with the template of its conversations; no weights are loaded.

    Raises:
        CheckpointNotFoundError: A model cannot be found.
    """
    return read_tokenizers(
        recipe, Layout.of(recipe, lambda a: Path(fetch_checkpoint(a, lambda _: None)))
    ).main


@dataclass(frozen=True)
class TokenMeanings:
    """What ids mean in a recipe: `common` in all models, `end` of answers, `unscaled` by L / S."""

    common: frozenset[int]
    end: frozenset[int]
    unscaled: frozenset[int]

    @classmethod
    def of(
        cls, recipe: Recipe, layout: Layout, tokenizers: RecipeTokenizers, modules: Mapping[str, Any]
    ) -> TokenMeanings:
        """Compare the vocabularies of all models and collect the tokens that end answers.

        Args:
            recipe: Says which tokens are not scaled, if it says so.
            layout: Where the models are.
            tokenizers: Of all models.
            modules: The loaded models by folder.
        """
        main = tokenizers.main
        common = vocabulary.common_ids(main, tokenizers.small, layout.base.name)
        base_stops = _stops(modules[layout.base.folder], main)
        answer_endings = []
        for name, own in tokenizers.tuned.items():
            pair = layout.pairs[name]
            if pair.tuned == layout.base:
                continue
            module = None if pair.adapter else modules[pair.tuned.folder]
            spoken = own if own is not None and own.chat_template and not recipe.chat_template else main
            answer_endings.append(
                vocabulary.AnswerEndings(name, vocabulary.template_tokens(spoken), _stops(module, own))
            )
        named = recipe.unscaled_tokens
        # Reading a transcript, the base knows nothing of turns, whatever it ends its own texts with.
        known_stops = () if recipe.base_template else base_stops
        return cls(
            common,
            vocabulary.end_ids(base_stops, answer_endings, common),
            vocabulary.unscaled_ids(known_stops, answer_endings, common)
            if named is None
            else vocabulary.ids_of(named, main) & common,
        )


def _stops(module: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a text by a model's configuration and its tokenizer, as far as there are any."""
    configured = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    ids: Sequence[int | None] = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, getattr(tokenizer, "eos_token_id", None)] if i is not None)
