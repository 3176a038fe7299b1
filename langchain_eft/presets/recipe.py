"""The recipe of a model by name: a preset's, or that of any other base, with the caller's behaviors."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from langchain_eft.engine.error_text import did_you_mean, quoted_names
from langchain_eft.engine.errors import CheckpointNotFoundError
from langchain_eft.engine.loading.hub import HubModel
from langchain_eft.engine.recipe.behaviors import BaseTemplate, BehaviorDelta, Recipe
from langchain_eft.engine.recipe.frozen import FrozenDict
from langchain_eft.presets import load_preset, preset_names


@lru_cache(maxsize=64)  # models are built often, and a look at the disk may block an event loop
def build_recipe(
    name: str,
    behaviors: FrozenDict[str, BehaviorDelta],
    chat_template: Path | None,
    base_template: BaseTemplate | None,
    unscaled_tokens: tuple[str, ...] | None,
    allow_negative_weights: bool,  # noqa: FBT001
) -> Recipe:
    """The recipe of a preset, hub id, local folder or `.gguf` file.

    Behaviors are added to the preset's own. A behavior with weights and without a reference takes the
    reference of the preset's behaviors.

    Args:
        name: Name of the preset or of the base model.
        behaviors: Behaviors to add, by name.
        chat_template: As in `Recipe`.
        base_template: As in `Recipe`.
        unscaled_tokens: As in `Recipe`.
        allow_negative_weights: As in `Recipe`.

    Raises:
        CheckpointNotFoundError: The name names neither a preset nor a model.
    """
    preset = load_preset(name)
    if preset is None and not _names_a_model(name):
        raise CheckpointNotFoundError(_unknown(name))
    base = preset.recipe if preset else Recipe(base=name)
    preset_reference = next((delta.reference for delta in base.behaviors.values()), None)
    added = {
        key: delta.model_copy(update={"reference": preset_reference}) if _lacks_reference(delta) else delta
        for key, delta in behaviors.items()
    }
    return Recipe(
        base=base.base,
        behaviors={**base.behaviors, **added},
        chat_template=chat_template or base.chat_template,
        base_template=base_template or base.base_template,
        unscaled_tokens=unscaled_tokens,
        allow_negative_weights=allow_negative_weights,
    )


def _unknown(name: str) -> str:
    if name.startswith((".", "/", "~")) or name.endswith(".gguf"):
        return f"model={name!r} does not exist: give a folder with a model, or a .gguf file."
    known = did_you_mean([name], preset_names()) or f" The presets are {quoted_names(preset_names())}."
    return (
        f"model={name!r} is neither a preset, nor a local folder or .gguf file, nor a hub id of the form "
        f"'owner/name' or 'owner/name/path@revision'.{known}"
    )


def _lacks_reference(delta: BehaviorDelta) -> bool:
    return delta.has_weights and delta.reference is None


def _names_a_model(name: str) -> bool:
    path = Path(name).expanduser()
    return bool(name) and (path.is_dir() or path.is_file() or HubModel.parse(name) is not None)
