"""Which formulas need `allow_negative_weights`, by the exponent of each model."""

import pytest

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.exponents import refuse_negative_exponents


def refuse(*distributions, negated=()):
    refuse_negative_exponents(distributions, ("L", "org/base"), {"chat": ("F", "S")}, negated)


def realigned(weight):
    """The terms of a mixture whose base is also the reference."""
    return [("L", 1.0), ("F", weight), ("L", -weight)]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 0.1 + 0.2 + 0.7])
def test_dividing_by_references_is_the_method(weight):
    refuse(realigned(weight))
    refuse([("L", 1.0), ("F", weight), ("S", -weight)])


def test_a_positive_weight_may_still_divide_by_the_base():
    with pytest.raises(
        RecipeError, match=r"base 'org/base' the exponent -0\.3\b.*allow_negative_weights=True"
    ):
        refuse(realigned(1.3))


def test_the_coefficients_of_one_model_add_up():
    terms = [("L", 1.0), ("F", 0.5), ("S", -0.5), ("G", 1.0), ("F", -1.0)]
    with pytest.raises(RecipeError, match=r"'chat' the exponent -0\.5"):
        refuse(terms)
    refuse([*terms, ("F", 0.5)])


def test_no_number_is_not_a_way_around():
    with pytest.raises(RecipeError, match="'chat' the exponent nan"):
        refuse([("L", 1.0), ("F", float("nan"))])


def test_a_negated_adapter_is_a_negative_weight():
    with pytest.raises(RecipeError, match=r"'chat' has a negative `lora_alpha`.*allow_negative_weights=True"):
        refuse([("L", 1.0), ("F", 0.5), ("S", -0.5)], negated={"F"})
    refuse([("L", 1.0)], negated={"F"})


def test_every_distribution_counts():
    with pytest.raises(RecipeError, match="'org/base' the exponent -1"):
        refuse([("L", 1.0)], [("L", -1.0)])


def test_a_behavior_of_prompts_divides_by_the_model_that_it_reads_twice():
    refuse_negative_exponents([[("L", 1.0), ("F", -0.5)]], ("L", "org/base"), {"brief": ("F", "F")})
