"""The formula as coefficients and as tensors, against its definition."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_eft.engine.decoding.formula import build_formula, combine, conservative
from langchain_eft.engine.decoding.shortcuts import SMALL_VOCABULARY
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp, weight_at

BEHAVIORS = {"a": ("A", "S"), "b": ("B", "S"), "c": ("C", "T")}
weights = st.floats(-2, 3).filter(lambda w: abs(w) > 1e-6)


@given(wa=weights, wb=weights, beta=st.floats(0, 3))
def test_coefficients_are_those_of_the_formula(wa, wb, beta):
    target = dict(build_formula("L", BEHAVIORS, {"a": wa, "b": wb}, beta).at(0).target)
    expected = {"L": beta, "A": wa, "B": wb, "S": -(beta - 1 + wa + wb)}
    for term, coefficient in expected.items():
        assert target.get(term, 0.0) == pytest.approx(coefficient, abs=2e-9)
    assert sum(target.values()) == pytest.approx(1, abs=1e-8)


def test_the_base_alone_needs_no_small_model():
    assert build_formula("L", BEHAVIORS, {}).terms == ("L",)


def test_strength_zero_at_weight_one_is_the_tuned_model_alone():
    assert build_formula("L", BEHAVIORS, {"a": 1.0}, upscale_strength=0).terms == ("A",)


def test_base_equal_to_reference_is_decoding_time_realignment():
    assert dict(build_formula("S", {"a": ("A", "S")}, {"a": 0.25}).at(0).target) == {"S": 0.75, "A": 0.25}


def test_behaviors_with_different_references_mix():
    target = dict(build_formula("L", BEHAVIORS, {"a": 1.0, "c": 0.5}).at(0).target)
    assert target == {"L": 1, "A": 1, "S": -1, "C": 0.5, "T": -0.5}


@pytest.mark.parametrize("setting", [{"upscale_strength": 1.5}, {"upscale_top_p": 0.9}])
def test_strength_and_top_p_need_one_common_reference(setting):
    with pytest.raises(RecipeError, match="common reference"):
        build_formula("L", BEHAVIORS, {"a": 1.0, "c": 1.0}, **setting)
    with pytest.raises(RecipeError, match="common reference"):
        build_formula("L", {}, {}, **setting)


def test_combining_logits_equals_combining_log_probabilities():
    torch.manual_seed(0)
    logits, weights = torch.randn(5, 11) * 4, torch.tensor([[1.0, 1.5, -1.5], [1.0, 0.0, 0.0]])
    index = torch.tensor([[4, 0, 2], [3, 0, 0]])
    actual = combine(logits, index, weights).softmax(-1)
    expected = torch.stack(
        [weights[0] @ logits[[4, 0, 2]].log_softmax(-1), logits[3].log_softmax(-1)]
    ).softmax(-1)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("rows", [[0, 1, 2], [1, 3, 5], [5, 3, 1], [2, 2, 2], [0, 1, 3], [4], []])
def test_rows_combine_alike_wherever_they_lie(rows):
    """A CPU does not copy the evenly spaced logits of a large vocabulary, and leaves them as they are."""
    torch.manual_seed(0)
    logits = torch.randn(6, 2 * SMALL_VOCABULARY)
    index = torch.tensor([rows, rows[::-1]], dtype=torch.int64).t()
    weights, before = torch.randn(len(rows), 2), logits.clone()
    expected = weights[:, :1] * logits[rows] + weights[:, 1:] * logits[rows[::-1]]
    torch.testing.assert_close(combine(logits, index, weights), expected)
    assert torch.equal(logits, before)


def test_conservative_decoding_leaves_the_tail_to_the_small_mixture():
    small = torch.tensor([[0.6, 0.3, 0.1]]).log()
    base, reference = torch.tensor([[0.1, 0.1, 0.8]]).log(), torch.tensor([[0.5, 0.4, 0.1]]).log()
    actual = conservative(small, base - reference, torch.tensor([0.8]), None).exp()
    expected = torch.tensor([[0.6 * 0.1 / 0.5, 0.3 * 0.1 / 0.4, 0.1]])
    torch.testing.assert_close(actual, expected)


def test_unscaled_tokens_follow_the_small_mixture_inside_and_outside_the_nucleus():
    small = torch.tensor([[0.6, 0.3, 0.1]]).log()
    upscale = torch.tensor([[2.0, 3.0, 4.0]]).log()
    unscaled = torch.tensor([[False, True, False]])
    torch.testing.assert_close(
        conservative(small, upscale, None, unscaled).exp(), torch.tensor([[1.2, 0.3, 0.4]])
    )
    inside = conservative(small, upscale, torch.tensor([0.8]), unscaled).exp()
    torch.testing.assert_close(inside, torch.tensor([[1.2, 0.3, 0.1]]))


@given(wa=weights, wc=weights, beta=st.floats(0.1, 3))
def test_small_mixture_and_up_scaling_add_up_to_the_formula(wa, wc, beta):
    for mixture, strength in (({"a": wa, "b": wc}, beta), ({"a": wa, "c": wc}, 1.0)):
        coefficients = build_formula("L", BEHAVIORS, mixture, strength, unscaled=True).at(0)
        total = Counter(dict(coefficients.small))
        for term, weight in coefficients.upscale:
            total[term] += weight
        for term in total.keys() | dict(coefficients.target).keys():
            assert total[term] == pytest.approx(dict(coefficients.target).get(term, 0.0), abs=1e-8)
        assert set(dict(coefficients.small)) >= {"A"}
        assert "L" not in dict(coefficients.small)


def test_terms_that_unscaled_tokens_need_run_even_if_they_cancel_in_the_target():
    weights = {"a": 0.5}
    assert set(build_formula("L", BEHAVIORS, weights, 0.5).terms) == {"L", "A"}
    assert set(build_formula("L", BEHAVIORS, weights, 0.5, unscaled=True).terms) == {"L", "A", "S"}


def test_unscaled_tokens_matter_only_with_a_small_mixture_and_up_scaling():
    assert build_formula("L", BEHAVIORS, {}, unscaled=True).terms == ("L",)
    assert build_formula("L", BEHAVIORS, {"a": 1.0}, upscale_strength=0, unscaled=True).at(0).small is None
    for pair in (("Lp", "L"), ("L", "L without")):
        same = build_formula("L", {"p": pair}, {"p": 1.0}, on_base_prompt=lambda _: "L", unscaled=True)
        assert same.at(0).small is None
    assert build_formula("S", {"a": ("A", "S")}, {"a": 1.0}, unscaled=True).at(0).small is None


def test_the_small_mixture_starts_from_small_models_where_there_are_any():
    prompted = {**BEHAVIORS, "p": ("L'", "L")}
    for weights, strength, start in [
        ({"a": 1.0, "b": 0.5}, 1.0, {"S"}),
        ({"a": 1.0, "c": 0.5}, 1.0, {"S", "T"}),
        ({"a": 1.0, "p": 1.4}, 1.0, {"S"}),
        ({"a": 1.0, "p": 1.4}, 1.5, {"S"}),
        ({"p": 1.4}, 1.0, set()),
        ({}, 1.0, set()),
    ]:
        formula = build_formula("L", prompted, weights, strength)
        assert set(formula.mixture_start) == start
        assert start <= set(replace(formula, traced=True).terms)


@pytest.mark.parametrize(
    ("weight", "last_change"),
    [(0.7, 0), (FirstTokens(tokens=5, weight=1.0, then=0.3), 5), (Ramp(start=0.0, end=1.0, tokens=6), None)],
)
def test_coefficients_are_constant_exactly_where_every_position_has_the_same(weight, last_change):
    formula = build_formula("L", {"a": ("F", "S")}, {"a": weight})
    at = [formula.at(position) for position in range(20)]
    assert [dict(c.target).get("F", 0.0) for c in at] == pytest.approx(
        [weight_at(weight, position) for position in range(20)]
    )
    for first in range(12):
        for count in (1, 2, 6):
            same = all(c == at[first] for c in at[first : first + count])
            assert formula.is_constant(first, count) == same
    if last_change is not None:
        assert formula.is_constant(last_change, 10**6)
