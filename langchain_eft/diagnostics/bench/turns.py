"""Contestants that take turns, and the spread of what was measured."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


def take_turns(
    contestants: Mapping[Name, Callable[[int], Result]],
    rounds: int,
    *,
    warm_up: int = 1,
    deadline: float = math.inf,
) -> dict[Name, list[Result]]:
    """Let contestants work in turns, and return their results, one a round.

    Other work on the machine then disturbs all alike: compare results of the same round. The first place
    changes with every round.

    Args:
        contestants: The work of each. It gets the number of the round, which is below 0 to warm up.
        rounds: The number of results of each.
        warm_up: The number of rounds before, whose results are dropped.
        deadline: No round but the first starts after this time of `time.monotonic`.
    """
    names = list(contestants)
    results: dict[Name, list[Result]] = {name: [] for name in names}
    for turn in range(-warm_up, rounds):
        if turn > 0 and time.monotonic() > deadline:
            break
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            result = contestants[name](turn)
            if turn >= 0:
                results[name].append(result)
    return results


@dataclass(frozen=True)
class Spread:
    """Median and extremes of a few values. `f"{spread:.2f}"` is such as `1.31 (1.27-1.36)`."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, values: Sequence[float], baselines: Sequence[float]) -> Spread:
        """The spread of each value over the baseline of its round."""
        return cls.of([value / baseline for value, baseline in zip(values, baselines, strict=True)])

    def __format__(self, style: str) -> str:
        return f"{self.median:{style}} ({self.low:{style}}-{self.high:{style}})"
