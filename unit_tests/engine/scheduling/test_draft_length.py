"""How much to draft: the choice follows acceptance and costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_eft.engine.scheduling.draft_length import (
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


def outlook(model=0.9, lookup=0.0, found=0, room=100, fixed=None):
    return RowForecast(model, lookup, found, room, fixed)


def total(rows, draft, verify):
    return choose_drafts(rows, draft, verify, 0.3)


def test_what_is_always_accepted_is_drafted_far_ahead():
    assert total([outlook(1.0)], *costs()) == [("model", 8)]


def test_what_is_rarely_accepted_is_not_drafted():
    assert total([outlook(0.2)], *costs()) == [("model", 0)]


def test_drafts_grow_with_acceptance():
    lengths = [total([outlook(rate / 20)], *costs())[0][1] for rate in range(21)]
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[10]


def test_dear_drafts_and_dear_verification_are_avoided():
    assert total([outlook(0.8)], *costs(draft=1.0)) == [("model", 0)]
    assert total([outlook(0.8)], *costs(slope=1.0)) == [("model", 0)]


def test_free_drafts_are_taken_from_the_text():
    assert total([outlook(None, lookup=0.9, found=6)], *costs()) == [("lookup", 6)]
    assert total([outlook(0.5, lookup=0.9, found=3)], *costs()) == [("lookup", 3)]


def test_a_fixed_length_is_obeyed_within_the_room():
    rows = [
        outlook(0.0, fixed=5),
        outlook(1.0, fixed=0),
        outlook(1.0, fixed=5, room=2),
        outlook(None, fixed=4),
    ]
    assert [count for _, count in total(rows, *costs())] == [5, 0, 2, 0]


def test_nothing_is_drafted_before_a_pass_has_been_measured():
    assert total([outlook(1.0)], PassCosts(), PassCosts()) == [("model", 0)]


@given(
    st.lists(
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
)
def test_choices_are_always_possible(rows):
    for row, (source, count) in zip(rows, total(rows, *costs()), strict=True):
        assert 0 <= count <= row.limit
        if source == "lookup":
            assert count <= row.lookup_tokens
        elif row.model is None:
            assert count == 0


def test_rates_follow_what_happens_and_successors_learn_faster():
    rate = AcceptanceRate(memory=64)
    for _ in range(200):
        rate.observe(9, 10)
    assert rate.value == pytest.approx(0.9, abs=0.02)
    heir = rate.prior_for_new_request()
    assert heir.value == pytest.approx(rate.value)
    heir.observe(0, 10)
    rate.observe(0, 10)
    assert heir.value < 0.4 < rate.value


def test_costs_are_interpolated_and_outliers_forgotten():
    seen = PassCosts()
    assert seen.estimate(3) is None
    seen.observe(1, 1.0)
    seen.observe(5, 2.0)
    seen.observe(5, 9.0)
    assert seen.estimate(3) == pytest.approx(1.5)
    assert seen.estimate(50) > 2.0


def test_a_round_yields_a_token_and_the_run_of_accepted_ones():
    assert expected_tokens([]) == 1
    assert expected_tokens([0.8] * 4) == pytest.approx((1 - 0.8**5) / (1 - 0.8))
    assert expected_tokens([0.5, 1.0, 0.0, 1.0]) == 2
