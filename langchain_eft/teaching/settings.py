"""Settings of the training, and defaults from the amount of data and the size of the model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from langchain_eft.teaching.errors import TeachingError


@dataclass(frozen=True)
class Settings:
    """How an adapter is trained. Everything that is None is chosen by `resolved`.

    Attributes:
        rank: Rank of the LoRA. Its alpha is twice the rank.
        learning_rate: Highest learning rate.
        steps: Steps of the optimizer.
        batch_size: Examples in a step.
        beta: Strength of the pull to the reference in DPO.
        seed: Of the split, of the adapter's first weights, and of the order of examples.
    """

    rank: int | None = None
    learning_rate: float | None = None
    steps: int | None = None
    batch_size: int = 8
    beta: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "learning_rate", "steps", "batch_size", "beta"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise TeachingError(f"{name} must be a positive number, got {value}.")

    def resolved(self, examples: int, hidden_size: int, *, preferences: bool) -> Settings:
        """The settings with a value for everything.

        More examples carry a larger rank. The rate falls with the width of the model: 1e-3 is what the
        adapters of the bundled reference (width 576) were trained with. Pairs take a fifth of it. Every
        example is seen three times, in at least 60 and at most 1,000 steps.

        Args:
            examples: Number of examples that are learned.
            hidden_size: Width of the reference.
            preferences: Whether the examples are pairs.
        """
        rate = 1e-3 * 576 / max(hidden_size, 288) * (0.2 if preferences else 1.0)
        return Settings(
            rank=self.rank or (8 if examples < 100 else 16 if examples < 2000 else 32),
            learning_rate=self.learning_rate or float(f"{rate:.2g}"),
            steps=self.steps or min(max(math.ceil(3 * examples / self.batch_size), 60), 1000),
            batch_size=self.batch_size,
            beta=self.beta,
            seed=self.seed,
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        return asdict(self)
