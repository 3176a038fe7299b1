"""Weights that change along an answer: piecewise linear functions of the token's position, and gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag

from langchain_eft.engine.recipe.gate import Gate


class _Schedule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ramp(_Schedule):
    """A weight that goes from `start` to `end` in equal steps and then stays at `end`."""

    start: FiniteFloat
    """Weight of the answer's first token."""

    end: FiniteFloat
    """Weight of all tokens after the first `tokens`."""

    tokens: int = Field(ge=1)
    """Number of steps from `start` to `end`; each token is one step."""

    def at(self, position: int) -> float:
        """Weight of the answer's token at `position`, counted from 0."""
        return self.start + (self.end - self.start) * min(position / self.tokens, 1.0)

    @property
    def knots(self) -> tuple[int, ...]:
        """Positions between which the weight is linear; after the last position it is constant."""
        return (0, self.tokens)


class FirstTokens(_Schedule):
    """One weight for the first `tokens` tokens of an answer, another for the rest."""

    tokens: int = Field(ge=1)
    """Number of tokens that have the first weight."""

    weight: FiniteFloat = 1.0
    """Weight of the first `tokens` tokens."""

    then: FiniteFloat = 0.0
    """Weight of all later tokens."""

    def at(self, position: int) -> float:
        """Weight of the answer's token at `position`, counted from 0."""
        return self.weight if position < self.tokens else self.then

    @property
    def knots(self) -> tuple[int, ...]:
        """Positions between which the weight is linear; after the last position it is constant."""
        return (0, self.tokens - 1, self.tokens)


def _kind(value: Any) -> str | None:
    if isinstance(value, Ramp | FirstTokens | Gate):
        return type(value).__name__
    if not isinstance(value, Mapping):
        return "number" if isinstance(value, int | float | str) else None
    for kind in (Ramp, FirstTokens, Gate):
        if value and set(value) <= set(kind.model_fields):
            return kind.__name__
    return None


Weight = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[Ramp, Tag("Ramp")]
    | Annotated[FirstTokens, Tag("FirstTokens")]
    | Annotated[Gate, Tag("Gate")],
    Discriminator(
        _kind,
        custom_error_type="weight",
        custom_error_message="A weight is a number, Ramp(start=0, end=1, tokens=32), "
        "FirstTokens(tokens=16, weight=1, then=0), Gate(below=0.4, weight=1, otherwise=0), or a dictionary "
        "with the same keys as one of these.",
    ),
]
"""The weight of a behavior: a constant, a function of the position in the answer, or a function of L."""


def weight_at(weight: Weight, position: int, *, opened: bool = False) -> float:
    """The weight of the answer's token at `position`, counted from 0."""
    if isinstance(weight, Gate):
        return weight.weight if opened else weight.otherwise
    return weight.at(position) if isinstance(weight, Ramp | FirstTokens) else weight


def knots(weight: Weight) -> tuple[int, ...]:
    """Positions between which a weight is linear; after the last position it is constant.

    A gate may open and close anywhere; each of its two weights is constant.
    """
    return weight.knots if isinstance(weight, Ramp | FirstTokens) else (0,)


def values(weight: Weight) -> list[float]:
    """The weight at its knots, or both weights of a gate. They include the largest and the smallest value."""
    if isinstance(weight, Gate):
        return [weight.weight, weight.otherwise]
    return [weight_at(weight, knot) for knot in knots(weight)]
