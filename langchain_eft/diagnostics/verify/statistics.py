"""Statistical tests of sampled tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from langchain_eft.diagnostics.verify.reference import distribution
from langchain_eft.engine.request import SamplingParams


def log_p_excess(log_p: Tensor, tokens: Sequence[int], sampling: SamplingParams) -> tuple[float, float]:
    """Compare the log-probability of tokens with its expected value.

    The log-probabilities are those before the filters. Tokens that the filters keep have the same differences
    with and without them, and a token that rounding moved across the edge of a filter keeps a finite value.

    Args:
        log_p: [T, V] the distributions that the tokens were drawn from, before temperature and filters.
        tokens: T tokens.
        sampling: Temperature and filters.

    Returns:
        Sum over t of log p(y_t) + H(p_t), and its variance if y_t is drawn from p_t.
    """
    p, scores = distribution(log_p, sampling), log_p / sampling.temperature
    token_scores = scores.gather(-1, torch.tensor(tokens, device=scores.device)[:, None])[:, 0]
    mean = (p * scores).sum(-1)
    variance = (p * (scores - mean[:, None]) ** 2).sum(-1)
    return float((token_scores - mean).sum()), float(variance.sum())


def z_test(sums: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Test that independent sums have mean 0.

    The tokens of an answer are a martingale. Each deviates by 0 on average, whatever the tokens before it. So
    their variances add up as well.

    Args:
        sums: Sums and their variances.

    Returns:
        z and the two-sided p-value; 0 and 1 if all variances are 0.
    """
    total, variance = (sum(column) for column in zip(*sums, strict=True))
    z = total / math.sqrt(variance) if variance else 0.0
    return z, float(2 * stats.norm.sf(abs(z)))


def chi_squared_test(
    counts: Tensor, expected: Tensor, rounding: float = 0.0, least: float = 5.0
) -> tuple[float, int, float]:
    """Test that counts agree with their expected values. Rare outcomes share one bin.

    Args:
        counts: [V] count of each outcome.
        expected: [V] float64 expected count of each outcome, with the same sum.
        rounding: Relative error of the expected counts that the test tolerates.
        least: Smallest expected count of a bin.

    Returns:
        Pearson's statistic, its degrees of freedom, and an upper bound of the p-value, which is exact if
        `rounding` is 0.
    """
    order = expected.argsort(descending=True)
    common, rare = int((expected >= least).sum()), float(expected[expected < least].sum())
    # If the rare outcomes are too few for a bin, they join the last common one.
    starts = np.arange(max(common + (rare >= least), 1))
    observed, predicted = (
        np.add.reduceat(each[order].double().numpy(), starts) for each in (counts, expected)
    )
    degrees_of_freedom = len(starts) - 1
    if not degrees_of_freedom:
        return 0.0, 0, 1.0
    value = stats.chisquare(observed, predicted).statistic
    # The statistic is the squared length of a vector. Rounding adds at most its own length to that length.
    beyond = max(math.sqrt(value) - rounding * math.sqrt(predicted.sum()), 0) ** 2
    return float(value), degrees_of_freedom, float(stats.chi2.sf(beyond, degrees_of_freedom))
