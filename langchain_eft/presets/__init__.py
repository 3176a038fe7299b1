"""Named recipes: one `<name>.json` each, and a folder of that name for weights that travel along.

Figures are those of the models' own pages; licences of gated models have to be accepted there first.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from langchain_eft.engine.recipe.behaviors import BehaviorDelta, ModelSource, Recipe
from langchain_eft.engine.recipe.mixture import Mixture

_FOLDER = Path(__file__).parent


class VocabularyRows(BaseModel):
    """Rows of the embeddings, which may differ by padding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: int
    small: int


class Preset(BaseModel):
    """A recipe by name, with the mixture that it is meant to be used with."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    license: str
    """Licence of the weights."""

    gated: bool
    """Whether the hub hands the weights only to accounts that have accepted their licence."""

    vocabulary_rows: VocabularyRows

    recipe: Recipe
    mixture: Mixture


class _PresetFile(BaseModel):
    """`<name>.json`: sources that begin with `./` are relative to this folder, others are hub ids."""

    model_config = ConfigDict(extra="forbid")

    description: str
    license: str
    gated: bool = False
    base: ModelSource
    reference: str
    behaviors: dict[str, BehaviorDelta] = Field(min_length=1)
    mixture: dict[str, float]
    chat_template: str | None = None
    vocabulary_rows: VocabularyRows

    def recipe(self) -> Recipe:
        """What is loaded; behaviours without a reference of their own take the preset's."""
        return Recipe(
            base=self.base,
            behaviors={
                name: BehaviorDelta(
                    tuned=_located(delta.tuned),
                    adapter=_located(delta.adapter),
                    reference=_located(delta.reference or self.reference),
                )
                for name, delta in self.behaviors.items()
            },
            chat_template=None if self.chat_template is None else _FOLDER / self.chat_template,
        )


def _located(source: ModelSource | None) -> ModelSource | None:
    local = isinstance(source, str) and source.startswith("./")
    return str(_FOLDER / source) if local else source  # type: ignore[operator]


@lru_cache
def _presets() -> dict[str, Preset]:
    found = []
    for path in sorted(_FOLDER.glob("*.json")):
        file = _PresetFile.model_validate_json(path.read_text(encoding="utf-8"))
        preset = Preset(
            name=path.stem,
            description=file.description,
            license=file.license,
            gated=file.gated,
            vocabulary_rows=file.vocabulary_rows,
            recipe=file.recipe(),
            mixture=Mixture(weights=file.mixture),
        )
        found.append(preset)
    return {preset.name: preset for preset in sorted(found, key=lambda p: (p.gated, p.name != "smol"))}


def preset_names() -> list[str]:
    """The presets that come with the package, those that anybody can fetch first."""
    return list(_presets())


def load_preset(name: str) -> Preset | None:
    """The preset of that name, or None."""
    return _presets().get(name)
