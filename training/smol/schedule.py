"""Training for a given time: how much of it is used up, and the learning rate that follows."""

from __future__ import annotations

import math
import time


class TimeBudget:
    """The share of the training time that is used up.

    Args:
        seconds: The training time.
        free_steps: How many first steps are not counted, because they wait for compilation.
    """

    def __init__(self, seconds: float, free_steps: int) -> None:
        self.seconds = seconds
        self.free_steps = free_steps
        self._start: float | None = None

    def used(self, step: int) -> float:
        """Return the share of the time that is used up before `step`; over 1 means stop."""
        if step < self.free_steps:
            return 0.0
        if self._start is None:
            self._start = time.monotonic()
        return (time.monotonic() - self._start) / self.seconds


def learning_rate(peak: float, step: int, warmup_steps: int, used: float) -> float:
    """Return the learning rate: a linear warm-up, then a cosine over time down to 3 % of `peak`.

    Args:
        peak: The highest learning rate.
        step: The step, from 0.
        warmup_steps: The number of steps of the warm-up.
        used: The share of the training time that is used up, 0 to 1.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * used))
    return peak * min(1.0, (step + 1) / warmup_steps) * (0.97 * cosine + 0.03)
