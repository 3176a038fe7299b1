"""Named recipes: one `<name>.json` each, and a folder of that name for bundled weights.

Licenses, windows and sizes come from the models' own pages. The licenses of gated models have to be
accepted there before the first use.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from langchain_eft.engine.recipe.behaviors import BehaviorDelta, ModelSource, Recipe
from langchain_eft.engine.recipe.mixture import Mixture

_FOLDER = Path(__file__).parent


class VocabularyRows(BaseModel):
    """Rows of the embedding matrices. They may differ by padding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: int
    small: int


class Preset(BaseModel):
    """A named recipe and its default mixture."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    license: str
    """License of the weights."""

    gated: bool
    """Whether the hub gives the weights only to accounts that have accepted their license."""

    context_window: int
    """Tokens that prompt and answer may have together: the smallest window of the models."""

    vocabulary_rows: VocabularyRows

    recipe: Recipe
    mixture: Mixture


class _PresetFile(BaseModel):
    """The content of `<name>.json`. Sources that begin with `./` are relative to its folder."""

    model_config = ConfigDict(extra="forbid")

    description: str
    license: str
    gated: bool = False
    base: ModelSource
    reference: str
    behaviors: dict[str, BehaviorDelta] = Field(min_length=1)
    mixture: dict[str, float]
    chat_template: str | None = None
    context_window: int = Field(ge=1)
    vocabulary_rows: VocabularyRows

    def recipe(self) -> Recipe:
        """The recipe. A behavior without a reference takes that of the preset."""
        return Recipe(
            base=self.base,
            behaviors={
                name: BehaviorDelta(
                    tuned=_absolute(delta.tuned),
                    adapter=_absolute(delta.adapter),
                    reference=_absolute(delta.reference or self.reference),
                )
                for name, delta in self.behaviors.items()
            },
            chat_template=None if self.chat_template is None else _FOLDER / self.chat_template,
        )


def _absolute(source: ModelSource | None) -> ModelSource | None:
    local = isinstance(source, str) and source.startswith("./")
    return str(_FOLDER / source) if local else source  # type: ignore[operator]


@lru_cache
def _presets() -> dict[str, Preset]:
    presets = []
    for path in sorted(_FOLDER.glob("*.json")):
        file = _PresetFile.model_validate_json(path.read_text(encoding="utf-8"))
        preset = Preset(
            name=path.stem,
            description=file.description,
            license=file.license,
            gated=file.gated,
            context_window=file.context_window,
            vocabulary_rows=file.vocabulary_rows,
            recipe=file.recipe(),
            mixture=Mixture(weights=file.mixture),
        )
        presets.append(preset)
    return {preset.name: preset for preset in sorted(presets, key=lambda p: (p.gated, p.name != "smol"))}


def preset_names() -> list[str]:
    """Names of the bundled presets, `smol` first and those with gated weights last."""
    return list(_presets())


def load_preset(name: str) -> Preset | None:
    """The preset of a name, or None."""
    return _presets().get(name)
