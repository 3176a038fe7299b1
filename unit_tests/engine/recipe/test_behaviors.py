"""Recipes and mixtures: immutable, hashable, validated."""

import copy
import pickle

import pytest
from pydantic import ValidationError

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.frozen import FrozenDict
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp


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


def test_frozen_dicts_survive_copying_and_pickling():
    frozen = FrozenDict({"a": 1})
    for duplicate in (copy.copy(frozen), copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):  # noqa: S301
        assert duplicate == frozen
        assert hash(duplicate) == hash(frozen)


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


def test_an_unknown_behavior_is_refused_with_the_names_of_the_recipe():
    with pytest.raises(RecipeError, match=r"'rude'.*'brief', 'polite'.*`mixture`.*BehaviorDelta"):
        recipe().check(Mixture.of({"rude": 1.0}))


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(weight):
    with pytest.raises(ValidationError, match=rf"'polite' is {weight}.*finite"):
        Mixture.of({"polite": weight})


def test_negative_weights_need_to_be_allowed():
    with pytest.raises(RecipeError, match=r"'polite' is -0\.5.*allow_negative_weights=True"):
        recipe().check(Mixture.of({"polite": -0.5}))
    recipe(allow_negative_weights=True).check(Mixture.of({"polite": -0.5}))


def test_weights_of_zero_are_not_active():
    assert Mixture.of({"polite": 0.0, "brief": 0.5}).active() == {"brief": 0.5}


def test_a_missing_chat_template_is_named():
    with pytest.raises(ValidationError, match=r"'nowhere\.jinja' is not a file"):
        recipe(chat_template="nowhere.jinja")


def test_sources_are_named_once_and_the_base_first():
    deltas = {
        "chat": BehaviorDelta(tuned="o/chat", reference="o/small"),
        "house": BehaviorDelta(adapter="o/lora", reference="o/small"),
    }
    assert Recipe(base="o/large", behaviors=deltas).sources == ("o/large", "o/small", "o/chat", "o/lora")
