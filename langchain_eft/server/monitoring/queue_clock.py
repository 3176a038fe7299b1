"""How long a refused request should wait until the queue has room."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from langchain_eft.engine.stats import EngineStats

_RECENT = 64
"""Number of answers whose length in seconds is remembered."""

_LONGEST = 60
"""Seconds; OpenAI's clients do not wait longer."""


class QueueClock:
    """Estimates from recent answers when those that wait now will have begun.

    Args:
        stats: What the engine does now; None while it is not open.
    """

    def __init__(self, stats: Callable[[], EngineStats | None]) -> None:
        self._stats = stats
        self._seconds: deque[float] = deque(maxlen=_RECENT)

    def answered(self, seconds: float) -> None:
        """Remember how long an answer took, waiting included."""
        self._seconds.append(seconds)

    def retry_after(self) -> int:
        """Seconds after which half of the queue will have begun, from 1 to 60.

        With R requests running and answers of D seconds, R / D requests begin in a second.
        """
        stats = self._stats()
        if stats is None or not self._seconds:
            return 1
        duration = sum(self._seconds) / len(self._seconds)
        estimate = stats.waiting / 2 * duration / max(stats.running, 1)
        return min(max(math.ceil(estimate), 1), _LONGEST)
