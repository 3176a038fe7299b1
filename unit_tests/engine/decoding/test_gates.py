"""Gates as tensors, against their definition."""

import pytest
import torch
from scipy import stats

from langchain_eft.engine.decoding.formula import build_formula
from langchain_eft.engine.decoding.gates import GateNumbers, add_gated, measures, open_gates
from langchain_eft.engine.recipe.gate import Gate

BEHAVIORS = {"a": ("A", "S"), "b": ("B", "S"), "own": ("F", "L")}


def opened(gates, base):
    """[R, G] which gates are open, if all rows have them and all models all tokens."""
    columns = zip(*map(GateNumbers.of, gates), strict=True)
    numbers = (torch.tensor([column]).expand(len(base), -1) for column in columns)
    return open_gates(measures(base, torch.ones(base.shape[1], dtype=torch.bool)), *numbers)


def test_measures_are_those_of_the_common_vocabulary():
    torch.manual_seed(0)
    logits, vocabulary = torch.randn(5, 11) * 3, torch.ones(11, dtype=torch.bool)
    vocabulary[[2, 10]] = False
    logits[:, 2] = 50.0  # a token that some model lacks
    probs = logits[:, vocabulary].double().softmax(-1)
    expected = torch.tensor([[float(p.max()), float(stats.entropy(p))] for p in probs])
    torch.testing.assert_close(measures(logits, vocabulary), expected)


def test_a_gate_that_is_always_open_is_open_at_certainty_too():
    logits = torch.tensor([[90.0, -90.0], [0.0, 0.0]])
    ends = [Gate(below=1), Gate(above=0), Gate(below=0), Gate(above=1)]
    assert opened(ends, logits).tolist() == [[1, 1, 0, 0]] * 2
    entropies = [Gate(below=0, measure="entropy"), Gate(above=0, measure="entropy")]
    assert opened(entropies, logits).tolist() == [[1, 0], [0, 1]]


def test_a_base_that_says_nothing_makes_its_row_nan_and_no_other():
    logits = torch.tensor([[float("nan"), 1.0], [0.0, 1.0]])
    is_open = opened([Gate(below=0.9)], logits)
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    gated = add_gated(weights, is_open, torch.tensor([[[0.5, 0.0]], [[0.5, 0.0]]]))
    assert gated[0, 0].isnan()
    assert gated[0, 1] == 2
    assert gated[1].tolist() == [3.5, 4.0]
    # The first row has no gate here, whatever stands in for its base.
    assert add_gated(weights, is_open, torch.tensor([[[0.0, 0.0]], [[0.5, 0.0]]]))[0].tolist() == [1.0, 2.0]


def test_closed_coefficients_and_open_gates_add_up_to_the_plain_weights():
    gate = Gate(below=0.4, weight=1.2, otherwise=0.3)
    formula = build_formula("L", BEHAVIORS, {"a": gate, "b": 0.5}, 1.5, unscaled=True)
    (gated,) = formula.gates
    for name in ("target", "small"):
        total = dict(getattr(formula.at(0), name))
        plain = build_formula("L", BEHAVIORS, {"a": 0.3, "b": 0.5}, 1.5, unscaled=True)
        assert total == pytest.approx(dict(getattr(plain.at(0), name)))
        for term, weight in gated.added:
            total[term] = total.get(term, 0.0) + weight
        plain = build_formula("L", BEHAVIORS, {"a": 1.2, "b": 0.5}, 1.5, unscaled=True)
        assert total == pytest.approx(dict(getattr(plain.at(0), name)))


def test_terms_run_that_only_an_open_gate_needs_and_the_base_that_it_asks():
    assert set(build_formula("L", BEHAVIORS, {"a": Gate(below=0.4)}).terms) == {"L", "A", "S"}
    alone = build_formula("L", BEHAVIORS, {"a": 1.0, "b": Gate(below=0.4)}, upscale_strength=0)
    assert set(alone.terms) == {"L", "A", "B", "S"}
    assert set(build_formula("L", BEHAVIORS, {"own": Gate(below=0.4)}).terms) == {"L", "F"}


def test_drafts_assume_open_gates():
    gated, plain = (build_formula("L", BEHAVIORS, {"a": w}).at(0).draft for w in (Gate(below=0.4), 1.0))
    assert gated == plain == (("A", 1.0),)


def test_a_gate_with_one_weight_on_both_sides_is_a_number():
    formula = build_formula("L", BEHAVIORS, {"a": Gate(below=0.4, weight=0.7, otherwise=0.7)})
    plain = build_formula("L", BEHAVIORS, {"a": 0.7})
    assert formula.gates == ()
    assert (formula.at(0), formula.terms) == (plain.at(0), plain.terms)


def test_every_state_of_the_gates_is_a_distribution_that_may_be_drawn_from():
    mixture = {"a": Gate(below=0.4), "b": Gate(above=0.4, weight=2)}
    assert [dict(terms) for terms in build_formula("L", BEHAVIORS, mixture).distributions()] == [
        {"L": 1, "A": 1, "S": -1},
        {"L": 1, "B": 2, "S": -2},
    ]
