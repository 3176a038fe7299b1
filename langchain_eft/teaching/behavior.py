"""What teaching gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from langchain_eft.engine.recipe.behavior_card import BehaviorCard
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.teaching.verdict import TaughtVerdict


@dataclass(frozen=True)
class TaughtBehavior:
    """A behavior in its folder.

    Attributes:
        folder: The folder: adapter, `behavior.json` and README.
        card: The content of `behavior.json`.
        verdict: What was measured, or None.
    """

    folder: Path
    card: BehaviorCard
    verdict: TaughtVerdict | None

    @property
    def delta(self) -> BehaviorDelta:
        """The behavior for a recipe that has its reference."""
        return BehaviorDelta(adapter=str(self.folder))
