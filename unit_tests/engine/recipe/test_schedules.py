"""Weights that change over an answer."""

import pytest
from pydantic import ValidationError

from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp


def test_schedules_are_immutable_and_hashable():
    ramps = [Mixture.of({"polite": Ramp(start=0, end=1, tokens=tokens)}) for tokens in (8, 8, 9)]
    assert len(set(ramps)) == 2
    assert Mixture.of(ramps[0].as_json()) == ramps[0]
    with pytest.raises(ValidationError, match="frozen"):
        ramps[0].weights["polite"].end = 2


def test_a_schedule_that_is_zero_everywhere_is_not_active():
    weights = {"polite": FirstTokens(tokens=4, weight=0), "brief": Ramp(start=0, end=0.5, tokens=2)}
    assert list(Mixture.of(weights).active()) == ["brief"]


def test_schedules_reach_the_weights_that_they_name():
    ramp, first = Ramp(start=0.2, end=1, tokens=4), FirstTokens(tokens=2, weight=1.5, then=0.3)
    assert [ramp.at(i) for i in (0, 2, 4, 99)] == pytest.approx([0.2, 0.6, 1, 1])
    assert [first.at(i) for i in (0, 1, 2, 99)] == [1.5, 1.5, 0.3, 0.3]
