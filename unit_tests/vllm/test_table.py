"""Factors by row: what the table gives equals the formula's own coefficients at each row's position."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_eft.engine.decoding.formula import Formula, build_formula
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.vllm.table import FactorTable

TERMS = ["base", "reference", "one", "two"]
PAIRS = {"one": ("one", "reference"), "two": ("two", "reference")}
DEFAULT = build_formula("base", PAIRS, {"one": 1.0})


def table(slots: int = 4) -> FactorTable:
    return FactorTable(TERMS, 4, slots, DEFAULT, torch.device("cpu"))


def expected(formula: Formula[str], position: int) -> tuple[list[float], list[float]]:
    coefficients = formula.at(position)
    sums = (coefficients.small or coefficients.target, coefficients.upscale or ())
    small, upscale = ([dict(total).get(term, 0.0) for term in TERMS] for total in sums)
    return small, upscale


WEIGHTS = st.one_of(
    st.floats(0, 2),
    st.builds(Ramp, start=st.floats(0, 2), end=st.floats(0, 2), tokens=st.integers(1, 9)),
    st.builds(FirstTokens, tokens=st.integers(1, 9), weight=st.floats(0, 2), then=st.floats(0, 2)),
)
FORMULAS = st.builds(
    lambda weights, strength, top_p, unscaled: build_formula(
        "base", PAIRS, weights, strength, top_p, unscaled=unscaled
    ),
    st.dictionaries(st.sampled_from(["one", "two"]), WEIGHTS),
    st.floats(0, 2),
    st.sampled_from([1.0, 0.5]),
    st.booleans(),
)


@settings(max_examples=60)
@given(st.lists(st.tuples(FORMULAS, st.integers(1, 30), st.integers(0, 20)), min_size=1, max_size=4))
def test_each_row_gets_the_coefficients_at_its_own_position(requests):
    rows = table()
    for slot, (formula, prompt, _) in enumerate(requests):
        rows.set(slot, formula, prompt)
    rows.flush()
    rows.begin_step(range(len(requests)), rows=None)

    factors = rows.factors(torch.tensor([prompt + position - 1 for _, prompt, position in requests]))

    conservative = any(formula.conservative for formula, *_ in requests)
    assert (factors.upscale is not None) == conservative
    for row, (formula, _, position) in enumerate(requests):
        small, upscale = expected(formula, position)
        assert factors.small[row].tolist() == pytest.approx(small, abs=1e-5)
        if factors.upscale is not None:
            assert factors.upscale[row].tolist() == pytest.approx(upscale, abs=1e-5)
            assert factors.upscale_top_p[row].item() == pytest.approx(formula.upscale_top_p)


def test_rows_follow_their_slots():
    rows = table()
    formulas = [build_formula("base", PAIRS, {"one": weight}) for weight in (0.1, 0.2, 0.3)]
    for slot, formula in enumerate(formulas):
        rows.set(slot, formula, 5)
    rows.swap(0, 2)
    rows.move(1, 3)
    rows.flush()

    rows.begin_step([3, 0], rows=torch.tensor([3, 3, 0]))

    weights = rows.factors(torch.tensor([6, 7, 9])).small[:, TERMS.index("one")]
    assert weights.tolist() == pytest.approx([0.2, 0.2, 0.3])


def test_rows_that_read_a_prompt_count_as_the_first_token():
    rows = table()
    rows.set(0, build_formula("base", PAIRS, {"one": Ramp(start=1, end=0, tokens=4)}), 50)
    rows.flush()
    rows.begin_step([0], rows=None)

    assert rows.factors(torch.tensor([9])).small[0, TERMS.index("one")] == 1


def test_the_run_that_measures_memory_gets_the_most_expensive_factors():
    factors = table(slots=2).factors(torch.zeros(5, dtype=torch.int64))

    assert factors.small.shape == (5, 4)
    assert factors.upscale is not None


def test_rows_without_a_slot_are_an_error():
    rows = table()
    rows.begin_step([0, 1], rows=torch.tensor([0, 1]))

    with pytest.raises(RuntimeError, match="3 rows of logits in a step of 2"):
        rows.factors(torch.zeros(3, dtype=torch.int64))
