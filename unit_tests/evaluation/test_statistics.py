"""Intervals against scipy, agreement against the textbook."""

import math

import numpy as np
import pytest
from scipy import stats

from langchain_eft.evaluation import Estimate, agreement, difference, estimate, mean, normalized_gain, share

NUMBERS = np.random.default_rng(1).gamma(2.0, 3.0, 40)


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (0, 20), (7, 20), (20, 20), (87, 246), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_shares_have_wilsons_interval(successes, count, confidence):
    expected = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    found = share(successes, count, confidence=confidence)
    assert found.value == successes / count
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_means_have_a_percentile_bootstrap_interval():
    found = mean(NUMBERS.tolist(), resamples=20_000)
    expected = stats.bootstrap(
        (NUMBERS,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert found.value == pytest.approx(NUMBERS.mean())
    # The standard error of a bound is about a fiftieth of the interval's length here.
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say():
    random = np.random.default_rng(2)
    covered = [
        found.low <= 0.3 <= found.high
        for found in (share(int(random.binomial(60, 0.3)), 60) for _ in range(2000))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_differences_are_paired():
    """A constant difference is certain, however much the cases vary."""
    found = difference((NUMBERS + 0.5).tolist(), NUMBERS.tolist())
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_a_gain_is_the_share_of_the_gap_that_is_closed():
    low, high = NUMBERS.tolist(), (NUMBERS + 4).tolist()
    found = normalized_gain((NUMBERS + 1).tolist(), low, high)
    assert (found.low, found.value, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_a_gap_that_may_be_zero_gives_no_bound():
    found = normalized_gain([0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0])
    assert math.isinf(found.low)
    assert math.isinf(found.high)


def test_one_value_proves_nothing():
    assert mean([3.0]) == Estimate(3.0, -math.inf, math.inf, 1)


def test_shares_and_means_are_told_apart():
    assert estimate([0, 1, 1]) == share(2, 3)
    assert estimate([0, 1, 0.5]) == mean([0, 1, 0.5])


def test_the_same_seed_gives_the_same_interval():
    assert mean(NUMBERS.tolist(), seed=3) == mean(NUMBERS.tolist(), seed=3)
    assert mean(NUMBERS.tolist(), seed=3) != mean(NUMBERS.tolist(), seed=4)


@pytest.mark.parametrize("samples", [([], []), ([1.0], [1.0, 2.0])])
def test_cases_must_match(samples):
    with pytest.raises(ValueError, match="scores"):
        difference(*samples)


def test_no_share_of_nothing():
    with pytest.raises(ValueError, match="0 of 0"):
        share(0, 0)


# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", example C: 4 observers, 12 units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("interval", 0.849)])
def test_alpha_is_krippendorffs(level, alpha):
    found = agreement(OBSERVERS, level)
    assert found.alpha == pytest.approx(alpha, abs=0.0005)
    assert found.low < found.alpha < found.high
    assert found.cases == 11


def test_guessing_judges_agree_by_chance_only():
    guesses = np.random.default_rng(0).integers(0, 2, (2, 2000)).tolist()
    found = agreement(guesses, resamples=200)
    assert found.raw.value == pytest.approx(0.5, abs=0.04)
    assert found.alpha == pytest.approx(0, abs=0.06)


def test_judges_who_always_say_the_same_prove_nothing():
    found = agreement([["A", "A"], ["A", "A"]])
    assert (found.raw.value, found.alpha) == (1, None)


def test_agreement_about_one_case_has_no_interval():
    found = agreement([["A"], ["B"]])
    assert (found.raw.value, found.alpha, found.low, found.high) == (0, 0, None, None)


def test_numbers_are_needed_where_distance_counts():
    with pytest.raises(TypeError, match=r"'A'.*level='nominal'"):
        agreement([["A", 1], [2, 1]], "interval")


def test_one_judge_agrees_with_nobody():
    with pytest.raises(ValueError, match="2 judges"):
        agreement([[1, 2]])
    with pytest.raises(ValueError, match="two judges"):
        agreement([[1, None], [None, 2]])
