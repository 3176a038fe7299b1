"""Estimates with confidence intervals: shares, means, differences and normalized gains.

The bootstrap resamples cases. Systems that answered the same cases are resampled together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 4000

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with a confidence interval.

    Attributes:
        value: The number.
        low: Lower end of the interval.
        high: Upper end of the interval.
        count: Number of cases.
    """

    value: float
    low: float
    high: float
    count: int

    def scaled(self, factor: float) -> Estimate:
        """The estimate in another unit."""
        low, high = sorted((self.low * factor, self.high * factor))
        return Estimate(self.value * factor, low, high, self.count)


def estimate(values: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0) -> Estimate:
    """The mean of scores. The interval is Wilson's where all scores are 0 or 1, else a bootstrap interval."""
    if values and all(value in (0, 1) for value in values):
        return share(int(sum(values)), len(values), confidence=confidence)
    return mean(values, confidence=confidence, seed=seed)


def share(successes: int, count: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """A share with Wilson's score interval (Wilson 1927), which is also valid near 0 and 1.

    Raises:
        ValueError: No cases, or more successes than cases.
    """
    if not 0 <= successes <= count or count == 0:
        raise ValueError(
            f"{successes} of {count} cases is not a share: give 0 <= successes <= count, count > 0."
        )
    interval = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return Estimate(successes / count, float(interval.low), float(interval.high), count)


def mean(
    values: Sequence[float], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """A mean with its percentile bootstrap interval (Efron 1979), which is infinite for a single value.

    Raises:
        ValueError: No values.
    """
    return _bootstrap([values], lambda means: means[0], confidence, resamples, seed)


def difference(
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The mean of `first` minus the mean of `second`, over the same cases, with a paired bootstrap interval.

    Raises:
        ValueError: Not the same number of cases, or none.
    """
    return _bootstrap([first, second], lambda means: means[0] - means[1], confidence, resamples, seed)


def normalized_gain(
    scores: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The share of the gap between two systems that a third one closes: (x - low) / (high - low).

    Figure 3 of Mitchell et al. 2023 has these axes, with the small and the large fine-tuned model as ends.
    All three systems have scores for the same cases. A gap that may be zero gives an infinite interval.

    Raises:
        ValueError: Not the same number of cases, or none.
    """

    def gain(means: _Floats) -> _Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            gains: _Floats = (means[0] - means[1]) / (means[2] - means[1])
        return gains

    return _bootstrap([scores, low, high], gain, confidence, resamples, seed)


def _bootstrap(
    samples: Sequence[Sequence[float]],
    statistic: Callable[[_Floats], _Floats],
    confidence: float,
    resamples: int,
    seed: int,
) -> Estimate:
    """A statistic of means, with percentiles over resampled cases.

    Args:
        samples: The scores of each of S systems on the same cases.
        statistic: Maps means [S, R] of R resamples to [R].
        confidence: Confidence level of the interval.
        resamples: R.
        seed: Seed of the bootstrap.
    """
    lengths = {len(sample) for sample in samples}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f"{[len(sample) for sample in samples]} scores: give equally many for every system, at least one."
        )
    values = np.asarray(samples, dtype=np.float64)
    count = values.shape[1]
    point = float(statistic(values.mean(1, keepdims=True))[0])
    if count == 1:
        return Estimate(point, -math.inf, math.inf, 1)
    means = stats.bootstrap(
        values,
        lambda *resample, axis: np.stack([scores.mean(axis) for scores in resample]),
        paired=True,
        n_resamples=resamples,
        method="percentile",
        rng=seed,
    ).bootstrap_distribution
    distribution = statistic(means)
    # 0 / 0 has no value: it counts as -inf for the lower end and as inf for the upper end.
    low, high = (np.where(np.isnan(distribution), bound, distribution) for bound in (-math.inf, math.inf))
    tail = (1 - confidence) / 2
    # Interpolated percentiles would be nan next to an infinite value.
    return Estimate(
        point,
        float(np.quantile(low, tail, method="lower")),
        float(np.quantile(high, 1 - tail, method="higher")),
        count,
    )
