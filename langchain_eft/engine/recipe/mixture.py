"""The weight of each behavior in one request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from langchain_eft.engine.recipe.frozen import FrozenDict, FrozenModel
from langchain_eft.engine.recipe.schedules import Weight, values


def _finite(weights: dict[str, Weight]) -> FrozenDict[str, Weight]:
    for name, weight in weights.items():
        if isinstance(weight, float) and not math.isfinite(weight):
            raise ValueError(
                f"The weight of behavior {name!r} is {weight}: use a finite number, usually between 0 (off) "
                "and 1 (as trained)."
            )
    return FrozenDict(sorted(weights.items()))


class Mixture(FrozenModel):
    """The weight of each behavior in one request: `{"tools": 1.0, "concise": 0.5}`.

    The empty mixture is the base model alone.
    """

    weights: Annotated[dict[str, Weight], AfterValidator(_finite)] = Field(
        default_factory=lambda: FrozenDict[str, Weight]()
    )

    @classmethod
    def of(cls, mixture: Mixture | Mapping[str, Any]) -> Mixture:
        """A mixture from a plain mapping; a `Mixture` is returned unchanged."""
        return mixture if isinstance(mixture, Mixture) else cls(weights=dict(mixture))

    def active(self) -> dict[str, Weight]:
        """The behaviors whose weight is not zero at every position."""
        return {name: weight for name, weight in self.weights.items() if any(values(weight))}

    def as_json(self) -> dict[str, Any]:
        """The weights as plain numbers and dictionaries."""
        plain: dict[str, Any] = self.model_dump(mode="json")["weights"]
        return plain
