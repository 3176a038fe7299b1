"""The weights of behaviors in one request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
)

from langchain_eft.engine.recipe.frozen import FrozenDict, FrozenModel
from langchain_eft.engine.recipe.schedules import Weight, values


def _finite(weights: dict[str, Weight]) -> FrozenDict[str, Weight]:
    for name, weight in weights.items():
        if isinstance(weight, float) and not math.isfinite(weight):
            raise ValueError(
                f"The weight of behaviour {name!r} is {weight}: weights are finite numbers, "
                "usually between 0 (off) and 1 (as trained)."
            )
    return FrozenDict(sorted(weights.items()))


class Mixture(FrozenModel):
    """How much of each behaviour a request decodes with: `{"tools": 1.0, "concise": 0.5}`.

    The empty mixture is the base model alone.
    """

    weights: Annotated[dict[str, Weight], AfterValidator(_finite)] = Field(
        default_factory=lambda: FrozenDict[str, Weight]()
    )

    @classmethod
    def of(cls, mixture: Mixture | Mapping[str, Any]) -> Mixture:
        """`mixture` as a Mixture, whether it is one already or a plain mapping."""
        return mixture if isinstance(mixture, Mixture) else cls(weights=dict(mixture))

    def active(self) -> dict[str, Weight]:
        """The behaviours whose weight is not zero throughout."""
        return {name: weight for name, weight in self.weights.items() if any(values(weight))}

    def as_json(self) -> dict[str, Any]:
        """The weights as plain numbers and dictionaries."""
        plain: dict[str, Any] = self.model_dump(mode="json")["weights"]
        return plain
