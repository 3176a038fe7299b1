"""Training for a given time: the learning rate of each step, until the time is used up."""

from __future__ import annotations

import math
import time
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def learning_rates(peak: float, seconds: float, warmup_steps: int, free_steps: int) -> Iterator[float]:
    """Yield the learning rate of each step: a linear warm-up, then a cosine over time down to 3 % of `peak`.

    Args:
        peak: The highest learning rate.
        seconds: The training time, after which there are no further steps.
        warmup_steps: The number of steps of the warm-up.
        free_steps: How many first steps take none of the time, because they wait for compilation.
    """
    start = 0.0
    for step in count():
        now = time.monotonic()
        start = now if step <= free_steps else start
        used = (now - start) / seconds
        if used > 1:
            return
        cosine = 0.5 * (1 + math.cos(math.pi * used))
        yield peak * min(1.0, (step + 1) / warmup_steps) * (0.97 * cosine + 0.03)
