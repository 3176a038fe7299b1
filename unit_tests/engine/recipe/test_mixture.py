"""Mixtures: weights that are finite, and those that take part."""

import pytest
from pydantic import ValidationError

from langchain_eft.engine.recipe.mixture import Mixture


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(weight):
    with pytest.raises(ValidationError, match=rf"'polite' is {weight}.*finite"):
        Mixture.of({"polite": weight})


def test_weights_of_zero_are_not_active():
    assert Mixture.of({"polite": 0.0, "brief": 0.5}).active() == {"brief": 0.5}
