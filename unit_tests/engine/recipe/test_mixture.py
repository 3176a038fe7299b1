"""Mixtures: weights that are finite, and those that take part."""

import pytest
from pydantic import ValidationError

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(weight):
    with pytest.raises(ValidationError, match=rf"(?s)polite.*finite.*input_value={weight}"):
        Mixture.of({"polite": weight})


def test_weights_of_zero_are_not_active():
    assert Mixture.of({"polite": 0.0, "brief": 0.5}).active() == {"brief": 0.5}


@pytest.mark.parametrize(
    "weight",
    [
        1e300,
        -1e38,
        10001,
        Ramp(start=1e308, end=-1e308, tokens=1),
        Ramp(start=0, end=1e300, tokens=10**400),
        FirstTokens(tokens=3, weight=0, then=1e38),
    ],
)
def test_weights_that_overflow_on_the_device_are_refused_at_every_step(weight):
    with pytest.raises(ValidationError, match=r"(?s)polite.*between -10000 and 10000"):
        Mixture.of({"polite": weight})


def test_the_largest_weights_are_allowed():
    ramp = Ramp(start=1e4, end=-1e4, tokens=3)
    assert Mixture.of({"polite": ramp, "brief": -1e4}).weights["polite"].at(3) == -1e4


@pytest.mark.parametrize("mixture", ["polite", 5, ["polite"], None])
def test_what_is_not_a_mapping_is_refused(mixture):
    with pytest.raises(RecipeError, match=r"mixture=.* is not a mapping of behaviors to weights: give"):
        Mixture.of(mixture)
