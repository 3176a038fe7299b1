"""Named recipes. A preset is a folder with a `preset.json` and whatever weights it brings along."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from langchain_eft.behaviors import BehaviorDelta, Mixture, ModelSource, Recipe

_FOLDER = Path(__file__).parent


class Preset(BaseModel):
    """A recipe by name, with the mixture that it is meant to be used with."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    recipe: Recipe
    mixture: Mixture


class _PresetFile(BaseModel):
    """`preset.json`: paths are relative to its folder."""

    model_config = ConfigDict(extra="forbid")

    description: str
    base: ModelSource
    reference: str
    adapters: list[str]
    chat_template: str
    mixture: dict[str, float]


@lru_cache
def preset_names() -> list[str]:
    """The presets that come with the package."""
    return sorted(file.parent.name for file in _FOLDER.glob("*/preset.json"))


@lru_cache
def load_preset(name: str) -> Preset | None:
    """The preset of that name, or None."""
    if name not in preset_names():
        return None
    folder = _FOLDER / name
    file = _PresetFile.model_validate_json((folder / "preset.json").read_text())
    recipe = Recipe(
        base=file.base,
        behaviors={
            adapter: BehaviorDelta(adapter=str(folder / adapter), reference=str(folder / file.reference))
            for adapter in file.adapters
        },
        chat_template=folder / file.chat_template,
    )
    return Preset(
        name=name,
        description=file.description,
        recipe=recipe,
        mixture=Mixture(weights=file.mixture),
    )
