"""Do judges agree? Raw, and corrected for the agreement of judges who guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from langchain_eft.evaluation.statistics import Estimate, mean

Level = Literal["nominal", "interval"]

Rating = float | str | None
"""What one judge said about one case; None if nothing."""


@dataclass(frozen=True)
class Agreement:
    """How far judges agree.

    Attributes:
        raw: Share of the pairs of ratings of one case that are equal, averaged over the cases.
        alpha: Krippendorff's alpha: 1 is perfect, 0 is chance; None where all ratings are the same.
        low: Lower end of alpha's bootstrap interval over the cases.
        high: Upper end of it.
        cases: Cases that at least two judges rated.
    """

    raw: Estimate
    alpha: float | None
    low: float | None
    high: float | None
    cases: int


def agreement(
    ratings: Sequence[Sequence[Rating]],
    level: Level = "nominal",
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Agreement of two or more judges.

    Args:
        ratings: One sequence for each judge, all over the same cases; None is a missing rating.
        level: `nominal` for verdicts, where any two either agree or not; `interval` for numbers, where near
            ones agree better than distant ones.
        confidence: Of the intervals.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: Fewer than two judges, different numbers of cases, or no case that two judges rated.
    """
    if len(ratings) < 2 or len({len(each) for each in ratings}) > 1:
        raise ValueError(
            f"{[len(each) for each in ratings]} ratings: give those of 2 judges or more for the same cases."
        )
    rated = [[value for value in case if value is not None] for case in zip(*ratings, strict=True)]
    units = [values for values in rated if len(values) > 1]
    if not units:
        raise ValueError("No case was rated by two judges: nothing can agree.")
    raw = mean([_equal_pairs(unit) for unit in units], confidence=confidence, resamples=resamples, seed=seed)
    distance = _DISTANCES[level]
    random = np.random.default_rng(seed)
    drawn = (random.integers(0, len(units), len(units)) for _ in range(resamples))
    found = [value for draw in drawn if (value := _alpha([units[i] for i in draw], distance)) is not None]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail]).tolist() if found else (None, None)
    return Agreement(raw, _alpha(units, distance), low, high, len(units))


def _equal_pairs(unit: Sequence[Rating]) -> float:
    pairs = list(combinations(unit, 2))
    return sum(a == b for a, b in pairs) / len(pairs)


def _alpha(units: Sequence[Sequence[Rating]], distance: Callable[[Rating, Rating], float]) -> float | None:
    """Krippendorff's alpha (Krippendorff 2011): 1 - observed / expected disagreement."""
    totals = Counter(value for unit in units for value in unit)
    count = totals.total()
    observed = sum(
        sum(2 * distance(a, b) for a, b in combinations(unit, 2)) / (len(unit) - 1) for unit in units
    )
    expected = sum(
        2 * n * m * distance(a, b) for (a, n), (b, m) in combinations(totals.items(), 2)
    )  # pairs of equal values have no distance
    return None if expected == 0 else 1 - (count - 1) * observed / expected


def _nominal(a: Rating, b: Rating) -> float:
    return float(a != b)


def _interval(a: Rating, b: Rating) -> float:
    if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
        raise TypeError(f"The ratings {a!r} and {b!r} are no numbers: use level='nominal'.")
    return float(a - b) ** 2


_DISTANCES: dict[Level, Callable[[Rating, Rating], float]] = {"nominal": _nominal, "interval": _interval}
