"""Which models a behavior is taught for: the recipe, its reference, and the folders they are in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.loading.behavior_cards import weights_hash
from langchain_eft.engine.loading.checkpoints import fetch_checkpoint, find_checkpoint
from langchain_eft.engine.loading.hub import HubModel
from langchain_eft.engine.loading.tokenizers import load_tokenizer, read_tokenizer
from langchain_eft.engine.loading.vocabulary import common_ids
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.recipe.behaviors import ModelSource, Recipe
from langchain_eft.engine.recipe.frozen import FrozenDict
from langchain_eft.presets import load_preset
from langchain_eft.presets.recipe import build_recipe
from langchain_eft.teaching.errors import TeachingError


@dataclass(frozen=True)
class Family:
    """A base and the reference on which behaviors for it are trained.

    Attributes:
        model: Name of the base, as the caller writes it.
        recipe: The recipe without the new behavior.
        reference: The small model that is trained.
        base_folder: Local folder of the base.
        reference_folder: Local folder of the reference.
        tokenizer: The recipe's tokenizer with its chat template.
    """

    model: str
    recipe: Recipe
    reference: ModelSource
    base_folder: Path
    reference_folder: Path
    tokenizer: Any

    @cached_property
    def reference_hash(self) -> str:
        """A hash of the reference's weights."""
        return weights_hash(self.reference_folder)

    @property
    def reference_name(self) -> str:
        """The reference as other machines can read it: a hub id, the name of a preset, or a path."""
        if load_preset(self.model) and HubModel.parse(str(self.reference)) is None:
            return f"preset:{self.model}"
        return str(self.reference)

    @property
    def hub_base(self) -> str | None:
        """Hub id of what the reference derives from, for a model card; None if there is none."""
        names = (str(self.reference), str(self.recipe.base))
        return next((name for name in names if HubModel.parse(name) and not Path(name).exists()), None)

    @property
    def license(self) -> str | None:
        """License of the preset's weights; None without a preset."""
        preset = load_preset(self.model)
        return preset.license if preset else None


def find_family(model: str, reference: str | None, chat_template: Path | None, progress: Progress) -> Family:
    """Find and fetch the models.

    Args:
        model: The base: a preset, a hub id or a folder.
        reference: The small model. A preset has one of its own.
        chat_template: A Jinja template instead of the models' own.
        progress: Receives what is fetched.

    Raises:
        TeachingError: No reference, or another one than the preset's.
        EngineError: A model cannot be found or fetched, or its vocabulary differs from the base's.
    """
    recipe = build_recipe(model, FrozenDict(), chat_template, None, None, False)  # noqa: FBT003
    own = list(dict.fromkeys(d.reference for d in recipe.behaviors.values() if d.reference is not None))
    chosen: ModelSource
    if reference is None:
        if len(own) != 1:
            raise TeachingError(
                f"reference=None, but model={model!r} has no reference of its own: name the small model that "
                "learns, of the same family and vocabulary as the base."
            )
        chosen = own[0]
    else:
        chosen = reference
    if own and find_checkpoint(chosen) not in [find_checkpoint(each) for each in own]:
        raise TeachingError(
            f"reference={reference!r} is not the reference of {model!r}, {quoted_names(map(str, own))}: a "
            "behavior works with the reference that it was trained on. Leave `reference` out, or name the "
            "base model instead of the preset."
        )
    base_folder = Path(fetch_checkpoint(recipe.base, progress))
    reference_folder = Path(fetch_checkpoint(chosen, progress))
    tokenizer = load_tokenizer(recipe)
    _require_vocabulary(tokenizer, reference_folder, model)
    return Family(model, recipe, chosen, base_folder, reference_folder, tokenizer)


def _require_vocabulary(tokenizer: Any, reference: Path, base_name: str) -> None:
    """Refuse a reference with another vocabulary before anything is trained."""
    own = read_tokenizer(reference)
    if own is not None:  # else it borrows the base's
        common_ids(tokenizer, [(str(reference), own)], base_name)
