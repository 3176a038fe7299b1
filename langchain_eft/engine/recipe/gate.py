"""Gates: weights that depend on how sure the base is of the next token.

Nudging (Fei et al. 2024) and other rules of deferral ask a small tuned model where the large base is unsure.
Here such a rule is a weight: `p = softmax(L + sum_i w_i(L) (F_i - S_i))`. L depends on nothing but the tokens
before, so p does too, and the rule that accepts draft tokens stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from langchain_eft.engine.recipe.frozen import FrozenModel

Measure = Literal["confidence", "entropy"]
"""How sure the base is: the largest probability of a token, or the entropy of all of them in nats."""

MEASURES: tuple[Measure, ...] = ("confidence", "entropy")

_LARGEST = {"confidence": 1.0, "entropy": math.inf}


class Gate(FrozenModel):
    """A weight that depends on the base's own distribution of the token: `Gate(below=0.4)`.

    The gate is open where the measure is at most `below`, or where it is larger than `above`. So a gate with
    `below` and one with `above` of the same value are never open together, and one of them always is.
    """

    below: FiniteFloat | None = Field(default=None, ge=0)
    """The gate is open up to this value of the measure. For `confidence`, 1 is always and 0 is never."""

    above: FiniteFloat | None = Field(default=None, ge=0)
    """The gate is open beyond this value of the measure. For `confidence`, 0 is always and 1 is never."""

    weight: FiniteFloat = 1.0
    """Weight where the gate is open."""

    otherwise: FiniteFloat = 0.0
    """Weight elsewhere."""

    measure: Measure = "confidence"
    """`confidence`, the largest probability under L (Fei et al. 2024), or `entropy`, that of L in nats. L is
    over the tokens that all models have, before penalties, temperature, filters and grammar."""

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if (self.below is None) == (self.above is None):
            given = "neither" if self.below is None else "both"
            raise ValueError(
                f"A Gate takes either `below` or `above`, and {given} was given: use Gate(below=0.4) for "
                "tokens that the base is unsure of, or Gate(above=0.4) for those that it is sure of."
            )
        if self.threshold > _LARGEST[self.measure]:
            raise ValueError(
                f"The gate opens at a confidence of {self.threshold:g}, which is a probability: use a number "
                "from 0 to 1, or measure='entropy' for a threshold in nats."
            )
        return self

    @property
    def threshold(self) -> float:
        """`below` or `above`."""
        return self.above if self.below is None else self.below  # type: ignore[return-value]

    def opens(self, value: float) -> bool:
        """Whether the gate is open at a value of its measure."""
        return (value <= self.threshold) == (self.below is not None)


def gate_states(gates: Sequence[Gate]) -> Iterator[tuple[bool, ...]]:
    """Every way in which gates can be open together, each once.

    Gates on one measure depend on one number, so they have few states. The two measures count as independent.
    """
    values = {measure: _distinct_values(measure, gates) for measure in MEASURES}
    points = (dict(zip(values, point, strict=True)) for point in product(*values.values()))
    yield from dict.fromkeys(tuple(gate.opens(point[gate.measure]) for gate in gates) for point in points)


def _distinct_values(measure: Measure, gates: Sequence[Gate]) -> list[float]:
    """Values of a measure, at least one on each side of every threshold that it can reach."""
    thresholds = {gate.threshold for gate in gates if gate.measure == measure} or {_LARGEST[measure]}
    both_sides = {side for value in thresholds for side in (value, math.nextafter(value, math.inf))}
    # A confidence is never 0, for some token is the most probable one.
    smallest = math.ulp(0.0) if measure == "confidence" else 0.0
    return sorted(value for value in both_sides if smallest <= value <= _LARGEST[measure])
