"""`behavior.json`: what a behavior's folder says of itself, beside the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_eft.engine.error_text import describe
from langchain_eft.engine.errors import RecipeError

CARD_FILE = "behavior.json"


class BehaviorCard(BaseModel):
    """How a behavior was made, and how it is meant to be used. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(min_length=1)
    """The behavior's name."""

    base: str
    """The large model that it was measured with."""

    reference: str
    """The small model that it was trained on, as its recipe names it."""

    reference_hash: str
    """`weights_hash` of that model."""

    source: str
    """What it was taught with: a file, a data set, or a description."""

    data_hash: str
    """A hash of the examples."""

    license: str
    """License of the adapter."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the training."""

    measured: dict[str, Any] = Field(default_factory=dict)
    """Figures of the training and of the verdict."""

    recommended_weight: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """The weight in a mixture that kept behavior and knowledge best; None if the behavior was not learned, or
    nothing was measured."""

    weight_range: tuple[float, float] | None = None
    """Smallest and largest weight that kept both, or None."""


def read_card(folder: Path) -> BehaviorCard | None:
    """The card of an adapter's folder, or None if it has none.

    Raises:
        RecipeError: The file is not a card.
    """
    file = folder / CARD_FILE
    if not file.is_file():
        return None
    try:
        return BehaviorCard.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        reason = describe(error) if isinstance(error, ValidationError) else str(error)
        raise RecipeError(
            f"{str(file)!r} does not describe a behavior ({reason}): fetch the folder again, or remove it."
        ) from error
