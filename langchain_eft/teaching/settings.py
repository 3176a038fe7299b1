"""Settings of the training, and defaults from the amount of data and the size of the model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from langchain_eft.teaching.errors import TeachingError

Precision = Literal["float32", "bfloat16"]
"""The arithmetic of the training. The adapter itself is float32 in both."""


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
        start: An adapter of the same reference to begin with: a folder or a hub id. It gives the rank and the
            alpha. None begins with an adapter that changes nothing.
        precision: `bfloat16` is faster on processors that have instructions for it. The default is `bfloat16`
            on a GPU and `float32` on a CPU.
    """

    rank: int | None = None
    learning_rate: float | None = None
    steps: int | None = None
    batch_size: int = 8
    beta: float = 0.1
    seed: int = 0
    start: str | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        for name in ("rank", "learning_rate", "steps", "batch_size", "beta"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise TeachingError(f"{name}={value} must be a positive number.")
        if self.precision not in (None, *get_args(Precision)):
            raise TeachingError(f"precision must be 'float32' or 'bfloat16', got {self.precision!r}.")

    def resolved(
        self, examples: int, hidden_size: int, *, preferences: bool, on_gpu: bool = False
    ) -> Settings:
        """The settings with a value for everything.

        More examples carry a larger rank. The rate falls with the width of the model: 1e-3 is what the
        adapters of the bundled reference (width 576) were trained with. Pairs take a fifth of it. Every
        example is seen three times, in at least 60 and at most 1,000 steps.

        Args:
            examples: Number of examples that are learned.
            hidden_size: Width of the reference.
            preferences: Whether the examples are pairs.
            on_gpu: Whether the training runs on a GPU.
        """
        rate = 1e-3 * 576 / max(hidden_size, 288) * (0.2 if preferences else 1.0)
        return replace(
            self,
            rank=self.rank or (8 if examples < 100 else 16 if examples < 2000 else 32),
            learning_rate=self.learning_rate or float(f"{rate:.2g}"),
            steps=self.steps or min(max(math.ceil(3 * examples / self.batch_size), 60), 1000),
            precision=self.precision or ("bfloat16" if on_gpu else "float32"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        return asdict(self)
