"""Agreement of judges: the share of equal ratings, and Krippendorff's alpha, which corrects for chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from langchain_eft.evaluation.statistics import Estimate, mean

Level = Literal["nominal", "interval"]

Rating = float | str | None
"""The rating of one judge for one case; None where there is none."""


@dataclass(frozen=True)
class JudgeAgreement:
    """How much judges agree.

    Attributes:
        raw: Share of the pairs of ratings of one case that are equal, averaged over the cases.
        alpha: Krippendorff's alpha: 1 is perfect, 0 is chance; None where all ratings are the same.
        low: Lower end of alpha's bootstrap interval over the cases; None with a single case.
        high: Upper end of the interval; None with a single case.
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
) -> JudgeAgreement:
    """The agreement of two or more judges.

    Args:
        ratings: One sequence for each judge, all over the same cases; None is a missing rating.
        level: `nominal` for verdicts, which are equal or not; `interval` for numbers, which agree better the
            closer they are.
        confidence: Confidence level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: Fewer than two judges, different numbers of cases, or no case that two judges rated.
    """
    if len(ratings) < 2 or len({len(each) for each in ratings}) > 1:
        raise ValueError(
            f"{[len(each) for each in ratings]} ratings: give those of at least 2 judges for the same cases."
        )
    rated = [[value for value in case if value is not None] for case in zip(*ratings, strict=True)]
    units = [values for values in rated if len(values) > 1]
    if not units:
        raise ValueError("No case was rated by two judges: give at least one such case.")
    values = list(dict.fromkeys(value for unit in units for value in unit))
    counts = np.array([[unit.count(value) for value in values] for unit in units], dtype=np.float64)
    judges = counts.sum(1)
    equal = (counts * (counts - 1)).sum(1) / (judges * (judges - 1))
    distance = _distances(values, level)
    disagreement = ((counts @ distance) * counts).sum(1) / (judges - 1)
    columns = np.column_stack([disagreement, counts])
    raw = mean(equal.tolist(), confidence=confidence, resamples=resamples, seed=seed)
    alpha = float(_alpha(columns.sum(0), distance))
    if np.isnan(alpha):
        return JudgeAgreement(raw, None, None, None, len(units))
    if len(units) == 1:
        return JudgeAgreement(raw, alpha, None, None, 1)
    sums = stats.bootstrap(
        [np.arange(len(units))],
        lambda resample: columns[resample].sum(0),
        vectorized=False,
        n_resamples=resamples,
        method="percentile",
        rng=seed,
    ).bootstrap_distribution
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(_alpha(sums, distance), [tail, 1 - tail]).tolist()
    return JudgeAgreement(raw, alpha, low, high, len(units))


def _alpha(sums: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Krippendorff's alpha (Krippendorff 2011): 1 - observed / expected disagreement.

    Args:
        sums: [1 + V, ...] the units' observed disagreement, and how often each of V values was given.
        distance: [V, V] how far values are apart.

    Returns:
        [...] alpha; nan where all values are the same.
    """
    observed, totals = sums[0], sums[1:]
    expected = ((distance @ totals) * totals).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected, 1 - (totals.sum(0) - 1) * observed / expected, np.nan)


def _distances(values: Sequence[Rating], level: Level) -> NDArray[np.float64]:
    """Distances between values, [V, V]."""
    if level == "nominal":
        return 1 - np.eye(len(values))
    text = next((value for value in values if isinstance(value, str)), None)
    if text is not None:
        raise TypeError(f"The rating {text!r} is not a number: use level='nominal'.")
    numbers = np.array(values, dtype=np.float64)
    squared: NDArray[np.float64] = (numbers[:, None] - numbers) ** 2
    return squared
