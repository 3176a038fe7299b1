"""Gates: what they accept, when they open, and how they open together."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from langchain_eft.engine.recipe.gate import Gate, gate_states
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import knots, values, weight_at

gates = st.builds(
    lambda side, threshold, measure: Gate(**{side: threshold}, measure=measure),
    st.sampled_from(["below", "above"]),
    st.floats(0, 1),
    st.sampled_from(["confidence", "entropy"]),
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither was given: use Gate"),
        ({"below": 0.3, "above": 0.5}, "both was given"),
        ({"below": 1.01}, "confidence of 1.01, which is a probability: use a number from 0 to 1"),
        ({"above": 7}, "confidence of 7"),
        ({"below": -0.1}, "greater than or equal to 0"),
        ({"below": math.nan}, "finite number"),
        ({"above": math.inf, "measure": "entropy"}, "finite number"),
        ({"below": 0.4, "weight": math.nan}, "finite number"),
        ({"below": 0.4, "otherwise": math.inf}, "finite number"),
        ({"below": 0.4, "measure": "margin"}, "'confidence' or 'entropy'"),
        ({"below": 0.4, "then": 0.2}, "[Ee]xtra"),
    ],
)
def test_what_is_no_gate_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Gate(**fields)


def test_an_entropy_is_in_nats_and_may_be_above_1():
    gate = Gate(above=2.5, measure="entropy")
    assert [gate.opens(value) for value in (0.0, 2.5, 2.6)] == [False, False, True]


@given(threshold=st.floats(0, 1), confidence=st.floats(0, 1, exclude_min=True))
def test_below_and_above_are_complements_and_the_ends_are_always_and_never(threshold, confidence):
    assert Gate(below=threshold).opens(confidence) != Gate(above=threshold).opens(confidence)
    assert Gate(below=1).opens(confidence)
    assert Gate(above=0).opens(confidence)
    assert not Gate(below=0).opens(confidence)
    assert not Gate(above=1).opens(confidence)


@given(some=st.lists(gates, max_size=4), confidence=st.floats(0.01, 1), entropy=st.floats(0, 9))
def test_the_states_of_gates_are_those_that_some_distribution_gives(some, confidence, entropy):
    states = list(gate_states(some))
    at = {"confidence": confidence, "entropy": entropy}
    assert tuple(gate.opens(at[gate.measure]) for gate in some) in states
    assert len(states) == len(set(states))


def test_gates_on_one_number_have_one_state_more_than_thresholds():
    below = [Gate(below=threshold) for threshold in (0.2, 0.4, 0.6)]
    assert set(gate_states(below)) == {(True,) * 3, (False, True, True), (False, False, True), (False,) * 3}
    assert set(gate_states([Gate(below=0.4), Gate(above=0.4)])) == {(True, False), (False, True)}
    assert list(gate_states([])) == [()]
    assert list(gate_states([Gate(below=1), Gate(above=1)])) == [(True, False)]


def test_the_weights_of_a_gate_are_those_of_its_two_sides():
    gate = Gate(below=0.4, weight=1.5, otherwise=0.2)
    assert (weight_at(gate, 7, opened=True), weight_at(gate, 7)) == (1.5, 0.2)
    assert values(gate) == [1.5, 0.2]
    assert knots(gate) == (0,)


def test_mixtures_hold_gates_as_json_and_as_hashable_values():
    mixture = Mixture.of({"polite": Gate(above=0.4, otherwise=0.5), "off": Gate(below=0.4, weight=0)})
    assert mixture.as_json()["polite"] == {
        "above": 0.4, "weight": 1.0, "otherwise": 0.5, "measure": "confidence"
    }  # fmt: skip
    assert Mixture.of(mixture.as_json()) == mixture
    assert hash(Mixture.of(mixture.as_json())) == hash(mixture)
    assert list(mixture.active()) == ["polite"]
    with pytest.raises(ValidationError, match="between -10000 and 10000"):
        Mixture.of({"polite": Gate(below=0.4, otherwise=1e6)})
    with pytest.raises(ValidationError, match=r"Gate\(below=0\.4, weight=1, otherwise=0\)"):
        Mixture.of({"polite": {"below": 0.4, "then": 1}})
