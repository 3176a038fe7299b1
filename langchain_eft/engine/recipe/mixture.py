"""The weight of each behavior in one request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.limits import LARGEST_COEFFICIENT
from langchain_eft.engine.recipe.frozen import FrozenDict, FrozenModel
from langchain_eft.engine.recipe.schedules import Weight, values


def _bounded(weight: Weight) -> Weight:
    if not all(abs(value) <= LARGEST_COEFFICIENT for value in values(weight)):
        raise ValueError(
            f"Use finite numbers between {-LARGEST_COEFFICIENT:g} and {LARGEST_COEFFICIENT:g}, usually from "
            "0 (off) to 1 (trained)."
        )
    return weight


def _sorted(weights: dict[str, Weight]) -> FrozenDict[str, Weight]:
    return FrozenDict(sorted(weights.items()))


class Mixture(FrozenModel):
    """The weight of each behavior in one request: `{"tools": 1.0, "concise": 0.5}`.

    The empty mixture is the base model alone.
    """

    weights: Annotated[dict[str, Annotated[Weight, AfterValidator(_bounded)]], AfterValidator(_sorted)] = (
        Field(default_factory=lambda: FrozenDict[str, Weight]())
    )

    @classmethod
    def of(cls, mixture: Mixture | Mapping[str, Any]) -> Mixture:
        """A mixture from a plain mapping; a `Mixture` is returned unchanged.

        Raises:
            RecipeError: It is neither.
        """
        if isinstance(mixture, Mixture):
            return mixture
        if not isinstance(mixture, Mapping):
            raise RecipeError(
                f"mixture={shown(mixture)} is not a mapping of behaviors to weights: give one such as "
                "{'tools': 1.0}, or a text such as 'tools=1.0'."
            )
        return cls(weights=dict(mixture))

    def active(self) -> dict[str, Weight]:
        """The behaviors whose weight is not zero at every position."""
        return {name: weight for name, weight in self.weights.items() if any(values(weight))}

    def as_json(self) -> dict[str, Any]:
        """The weights as plain numbers and dictionaries."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)["weights"]
        return plain
