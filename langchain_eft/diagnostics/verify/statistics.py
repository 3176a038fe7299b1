"""Tests of hypotheses about sampled tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from langchain_eft.diagnostics.verify.reference import distribution
from langchain_eft.engine.request import (
    SamplingParams,
)


def surprise(log_p: Tensor, tokens: Sequence[int], sampling: SamplingParams) -> tuple[float, float]:
    """How much more probable the tokens are than tokens of p are on average.

    Tokens are scored before they are filtered, which changes no difference among those that the filters keep
    and leaves a finite score to one that rounding moved across the edge of a filter.

    Args:
        log_p: [T, V] what the tokens were drawn from, before temperature and filters.
        tokens: T tokens.
        sampling: Temperature and filters.

    Returns:
        Sum over t of log p(y_t) + H(p_t), and its variance if y_t is drawn from p_t.
    """
    p, score = distribution(log_p, sampling), log_p / sampling.temperature
    said = score.gather(-1, torch.tensor(tokens, device=score.device)[:, None])[:, 0]
    mean = (p * score).sum(-1)
    variance = (p * (score - mean[:, None]) ** 2).sum(-1)
    return float((said - mean).sum()), float(variance.sum())


def z_test(sums: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Test that independent sums have mean 0.

    The tokens of an answer are a martingale: whatever was said before, each deviates by 0 on average, so
    their variances add up too.

    Args:
        sums: Sums and their variances.

    Returns:
        z and the two-sided p-value; 0 and 1 where nothing could vary.
    """
    total, variance = (sum(column) for column in zip(*sums, strict=True))
    z = total / math.sqrt(variance) if variance else 0.0
    return z, float(2 * stats.norm.sf(abs(z)))


def chi_squared_test(
    counts: Tensor, expected: Tensor, rounding: float = 0.0, least: float = 5.0
) -> tuple[float, int, float]:
    """Test that counts come as often as expected; rare outcomes share one bin.

    Args:
        counts: [V] how often each outcome came.
        expected: [V] float64 how often it should, with the same sum.
        rounding: Relative error of the expected counts that is no fault.
        least: Smallest expected count of a bin.

    Returns:
        Pearson's statistic, its degrees of freedom, and a bound on the p-value, exact without rounding.
    """
    order = expected.argsort(descending=True)
    common, rare = int((expected >= least).sum()), float(expected[expected < least].sum())
    # Rare outcomes that are too few for a bin of their own fall into the last common one.
    starts = np.arange(max(common + (rare >= least), 1))
    observed, predicted = (
        np.add.reduceat(each[order].double().numpy(), starts) for each in (counts, expected)
    )
    freedom = len(starts) - 1
    if not freedom:
        return 0.0, 0, 1.0
    value = stats.chisquare(observed, predicted).statistic
    # The statistic is the squared length of a vector, and rounding lengthens that by its own length at most.
    beyond = max(math.sqrt(value) - rounding * math.sqrt(predicted.sum()), 0) ** 2
    return float(value), freedom, float(stats.chi2.sf(beyond, freedom))
