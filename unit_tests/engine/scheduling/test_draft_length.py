"""The choice of draft lengths follows acceptance rates and costs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_eft.engine.scheduling.draft_length import (
    DRAFT_LENGTHS,
    AcceptanceRate,
    PassCosts,
    RowForecast,
    choose_drafts,
    expected_tokens,
)


def costs(draft=0.3, verify=1.0, slope=0.1):
    drafting, verifying = PassCosts(), PassCosts()
    for size in (1, 2, 4, 8, 16, 64):
        drafting.observe(size, draft)
        verifying.observe(size, verify + slope * (size - 1))
    return drafting, verifying


def forecast(model=0.9, lookup=0.0, lookup_tokens=0, limit=100, fixed=None):
    return RowForecast(model, lookup, lookup_tokens, limit, fixed)


def choices(rows, draft, verify):
    return choose_drafts(rows, draft, verify, 0.3)


def test_drafts_that_are_always_accepted_are_long():
    assert choices([forecast(1.0)], *costs()) == [("model", 8)]


def test_drafts_that_are_rarely_accepted_are_not_made():
    assert choices([forecast(0.2)], *costs()) == [("model", 0)]


def test_drafts_grow_with_acceptance():
    lengths = [choices([forecast(rate / 20)], *costs())[0][1] for rate in range(21)]
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[10]


def test_expensive_drafts_and_expensive_verification_are_avoided():
    assert choices([forecast(0.8)], *costs(draft=1.0)) == [("model", 0)]
    assert choices([forecast(0.8)], *costs(slope=1.0)) == [("model", 0)]


def test_prompt_lookup_is_preferred_where_it_gains_more():
    assert choices([forecast(None, lookup=0.9, lookup_tokens=6)], *costs()) == [("lookup", 6)]
    assert choices([forecast(0.5, lookup=0.9, lookup_tokens=3)], *costs()) == [("lookup", 3)]


def test_a_fixed_length_is_kept_up_to_the_limit():
    rows = [
        forecast(0.0, fixed=5),
        forecast(1.0, fixed=0),
        forecast(1.0, fixed=5, limit=2),
        forecast(None, fixed=4),
    ]
    assert [count for _, count in choices(rows, *costs())] == [5, 0, 2, 0]


def test_nothing_is_drafted_before_a_pass_has_been_measured():
    assert choices([forecast(1.0)], PassCosts(), PassCosts()) == [("model", 0)]


FORECASTS = st.lists(
    st.builds(
        RowForecast,
        model=st.none() | st.floats(0, 1),
        lookup=st.floats(0, 1),
        lookup_tokens=st.integers(0, 16),
        limit=st.integers(0, 20),
        fixed=st.none() | st.integers(0, 16),
    ),
    min_size=1,
    max_size=6,
)


@given(FORECASTS)
def test_choices_are_always_possible(rows):
    for row, (source, count) in zip(rows, choices(rows, *costs()), strict=True):
        assert 0 <= count <= row.limit
        if source == "lookup":
            assert count <= row.lookup_tokens
        elif row.model is None:
            assert count == 0


def possible(row):
    """Every draft of a row: source, length and expected tokens."""
    if row.fixed is not None:
        [choice] = choices([row], *costs())
        lengths = {choice[0]: [choice[1]]}
    else:
        lengths = {
            "model": [min(k, row.limit if row.model is not None else 0) for k in (0, *DRAFT_LENGTHS)],
            "lookup": [min(k, row.limit, row.lookup_tokens) for k in (0, *DRAFT_LENGTHS)],
        }
    rates = {"model": row.model or 0.0, "lookup": row.lookup}
    return [(source, k, expected_tokens([rates[source]] * k)) for source, ks in lengths.items() for k in ks]


def speed(drafts, drafting, verifying):
    seconds = verifying.estimate(sum(count + 1 for _, count, _ in drafts))
    lengths = [count for source, count, _ in drafts if source == "model"]
    for step in range(max(lengths, default=0)):
        seconds += drafting.estimate(sum(count > step for count in lengths))
    return sum(gain for *_, gain in drafts) / seconds


@settings(deadline=None)
@given(FORECASTS, st.floats(0.05, 0.6), st.floats(0, 0.2))
def test_no_common_draft_length_promises_more_than_the_choice(rows, draft, slope):
    """All rows draft up to so many tokens by model and so many by lookup, each the better of the two."""
    drafting, verifying = costs(draft, 1.0, slope)
    options = [possible(row) for row in rows]
    chosen = [
        next(option for option in options[i] if option[:2] == choice)
        for i, choice in enumerate(choices(rows, drafting, verifying))
    ]
    none = [one if len(one) == 1 else [("model", 0, 1.0)] for one in options]
    reached = speed(chosen, drafting, verifying)
    assert reached >= speed([one[0] for one in none], drafting, verifying) - 1e-9
    for by_model in range(len(DRAFT_LENGTHS) + 1):
        for by_lookup in range(len(DRAFT_LENGTHS) + 1):
            drafts = [
                one[0]
                if len(one) == 1
                else max(one[by_model], one[len(one) // 2 + by_lookup], key=lambda option: option[2])
                for one in options
            ]
            # A gain of less than a tenth over no drafts is not taken.
            assert speed(drafts, drafting, verifying) <= 1.1 * reached + 1e-9


def test_estimates_follow_measurements():
    seconds = PassCosts()
    seconds.observe(4, 2.0)
    assert seconds.estimate(4) == 2.0
    seconds.observe(4, 1.0)
    assert seconds.estimate(4) == 1.0
    for _ in range(5):
        seconds.observe(4, 3.0)
    assert seconds.estimate(4) == 3.0


def test_rates_follow_acceptance_and_those_of_new_requests_change_faster():
    rate = AcceptanceRate(memory=64)
    for _ in range(200):
        rate.observe(9, 10)
    assert rate.value == pytest.approx(0.9, abs=0.02)
    prior = rate.prior_for_new_request()
    assert prior.value == pytest.approx(rate.value)
    prior.observe(0, 10)
    rate.observe(0, 10)
    assert prior.value < 0.4 < rate.value


def test_costs_are_interpolated_and_outliers_forgotten():
    costs = PassCosts()
    assert costs.estimate(3) is None
    costs.observe(1, 1.0)
    costs.observe(5, 2.0)
    costs.observe(5, 9.0)
    assert costs.estimate(3) == pytest.approx(1.5)
    assert costs.estimate(50) > 2.0


def test_a_round_yields_a_token_and_the_run_of_accepted_ones():
    assert expected_tokens([]) == 1
    assert expected_tokens([0.8] * 4) == pytest.approx((1 - 0.8**5) / (1 - 0.8))
    assert expected_tokens([0.5, 1.0, 0.0, 1.0]) == 2
