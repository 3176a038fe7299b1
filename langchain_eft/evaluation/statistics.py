"""Estimates with confidence intervals: shares, means, differences and normalised gains.

Cases are what is resampled, and two systems that answered the same cases are resampled together.
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
    """A number and how sure it is.

    Attributes:
        value: The number itself.
        low: Lower end of the confidence interval.
        high: Upper end of the confidence interval.
        count: Cases that it rests on.
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
    """The mean of scores: a share, with Wilson's interval, where all are 0 or 1, else bootstrapped."""
    if values and all(value in (0, 1) for value in values):
        return share(int(sum(values)), len(values), confidence=confidence)
    return mean(values, confidence=confidence, seed=seed)


def share(successes: int, count: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """A share with Wilson's score interval (Wilson 1927), which holds near 0 and 1 as well.

    Raises:
        ValueError: No cases, or more successes than cases.
    """
    if not 0 <= successes <= count or count == 0:
        raise ValueError(
            f"{successes} of {count} cases is no share: give 0 <= successes <= count, count > 0."
        )
    interval = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return Estimate(successes / count, float(interval.low), float(interval.high), count)


def mean(
    values: Sequence[float], *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """A mean with its percentile bootstrap interval (Efron 1979); of one value, the interval is infinite.

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
    """Mean of `first` minus mean of `second`, both over the same cases, with a paired bootstrap interval.

    Raises:
        ValueError: Not the same number of cases, or none.
    """
    return _bootstrap([first, second], lambda means: means[0] - means[1], confidence, resamples, seed)


def normalised_gain(
    scores: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Share of the gap between two systems that a third one closes: (x - low) / (high - low).

    These are the axes of Figure 3 of Mitchell et al. 2023, there with the small and the large fine-tuned
    model as the two ends. All three scored the same cases, which are resampled together. A gap that
    may be zero gives an interval without an end.

    Raises:
        ValueError: Not the same number of cases, or none.
    """

    def gain(means: _Floats) -> _Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: _Floats = (means[0] - means[1]) / (means[2] - means[1])
        return found

    return _bootstrap([scores, low, high], gain, confidence, resamples, seed)


def _bootstrap(
    samples: Sequence[Sequence[float]],
    statistic: Callable[[_Floats], _Floats],
    confidence: float,
    resamples: int,
    seed: int,
) -> Estimate:
    """A statistic of means: its value, and the percentiles of it when cases are drawn with replacement.

    `statistic` maps means [samples, resamples] to [resamples].
    """
    lengths = {len(sample) for sample in samples}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f"{[len(sample) for sample in samples]} scores: give at least one, and as many of every system."
        )
    values = np.asarray(samples, dtype=np.float64)
    count = values.shape[1]
    point = float(statistic(values.mean(1, keepdims=True))[0])
    if count == 1:
        return Estimate(point, -math.inf, math.inf, 1)
    means = stats.bootstrap(
        values,
        lambda *drawn, axis: np.stack([sample.mean(axis) for sample in drawn]),
        paired=True,
        n_resamples=resamples,
        method="percentile",
        rng=seed,
    ).bootstrap_distribution
    found = statistic(means)
    # 0 / 0 tells nothing, so it is on both sides: it widens the interval on either end.
    low, high = (np.where(np.isnan(found), bound, found) for bound in (-math.inf, math.inf))
    tail = (1 - confidence) / 2
    # Percentiles that lie between two values would be nan beside an infinite one.
    return Estimate(
        point,
        float(np.quantile(low, tail, method="lower")),
        float(np.quantile(high, 1 - tail, method="higher")),
        count,
    )
