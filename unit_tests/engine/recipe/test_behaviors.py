"""Recipes and mixtures: immutable, hashable, validated."""

import pytest
from pydantic import ValidationError

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.mixture import Mixture


def recipe(**kwargs) -> Recipe:
    delta = BehaviorDelta(tuned="org/tuned", reference="org/reference")
    return Recipe(base="org/base", behaviors={"polite": delta, "brief": delta}, **kwargs)


def test_recipes_are_equal_in_any_order_of_their_behaviors():
    delta = BehaviorDelta(tuned="org/tuned", reference="org/reference")
    swapped = Recipe(base="org/base", behaviors={"brief": delta, "polite": delta})
    assert {recipe(): "engine"}[swapped] == "engine"
    assert recipe() != recipe(allow_negative_weights=True)


def test_nothing_can_be_changed_in_place():
    frozen = recipe()
    with pytest.raises(ValidationError, match="frozen"):
        frozen.base = "other"
    with pytest.raises(TypeError, match="immutable"):
        frozen.behaviors["rude"] = BehaviorDelta(adapter="x")
    with pytest.raises(TypeError, match="immutable"):
        Mixture.of({"polite": 1.0}).weights.pop("polite")


@pytest.mark.parametrize("settings", [{}, {"tuned": "a", "adapter": "b"}])
def test_a_behavior_is_either_tuned_weights_or_an_adapter(settings):
    with pytest.raises(ValidationError, match=r"either `tuned` or `adapter`.*(both|neither).*adapter="):
        BehaviorDelta(**settings)


def test_a_behavior_may_be_a_prompt_or_a_document_but_not_both():
    assert not BehaviorDelta(prompt="Be brief.").has_weights
    assert BehaviorDelta(without="context").compares_texts
    assert BehaviorDelta(prompt="Be brief.", adapter="x").has_weights
    with pytest.raises(ValidationError, match="either `prompt` or `without`"):
        BehaviorDelta(prompt="Be brief.", without="context")
    for settings in ({"prompt": ""}, {"without": "<context>"}):
        with pytest.raises(ValidationError, match=next(iter(settings))):
            BehaviorDelta(**settings)


def test_an_unknown_behavior_is_refused_with_the_names_of_the_recipe():
    with pytest.raises(RecipeError, match=r"'rude'.*'brief', 'polite'.*`mixture`.*BehaviorDelta"):
        recipe().check(Mixture.of({"rude": 1.0}))


def test_negative_weights_need_to_be_allowed():
    with pytest.raises(RecipeError, match=r"'polite' is -0\.5.*allow_negative_weights=True"):
        recipe().check(Mixture.of({"polite": -0.5}))
    recipe(allow_negative_weights=True).check(Mixture.of({"polite": -0.5}))


@pytest.mark.parametrize(
    "schedule",
    [
        {"start": 0.5, "end": -0.1, "tokens": 3},
        {"tokens": 3, "weight": 1.0, "then": -0.1},
        {"start": 1e308, "end": -1e308, "tokens": 1},  # whose slope is too large for a float
    ],
)
def test_a_schedule_may_not_fall_below_zero_anywhere(schedule):
    with pytest.raises((RecipeError, ValidationError), match="polite"):
        recipe().check(Mixture.of({"polite": schedule}))


def test_a_missing_chat_template_is_named():
    with pytest.raises(ValidationError, match=r"There is no such file.*nowhere\.jinja"):
        recipe(chat_template="nowhere.jinja")


def test_sources_are_named_once_and_the_base_first():
    deltas = {
        "chat": BehaviorDelta(tuned="o/chat", reference="o/small"),
        "house": BehaviorDelta(adapter="o/lora", reference="o/small"),
    }
    assert Recipe(base="o/large", behaviors=deltas).sources == ("o/large", "o/small", "o/chat", "o/lora")
