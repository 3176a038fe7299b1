"""Names tell when tuned model and reference are swapped."""

import pytest

from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.swapped_pairs import swapped, swapped_behaviors
from langchain_eft.presets import load_preset, preset_names

PAIRS = [
    (str(delta.tuned), str(delta.reference))
    for name in preset_names()
    for delta in load_preset(name).recipe.behaviors.values()
    if delta.tuned
]


@pytest.mark.parametrize(("tuned", "reference"), PAIRS)
def test_pairs_of_the_presets_are_in_order_and_swapped_the_other_way_round(tuned, reference):
    assert not swapped(tuned, reference)
    assert swapped(reference, tuned)


@pytest.mark.parametrize(
    ("tuned", "reference"),
    [
        ("./llama-2-7b", "mirror/Llama-2-7b-chat-hf"),
        ("models/base", "models/instruct"),
        ("org/model@main", "org/model-Instruct@v2"),
        ("org/model.gguf", "/data/model-instruct-Q8_0.gguf"),
    ],
)
def test_swapped_names(tuned, reference):
    assert swapped(tuned, reference)


@pytest.mark.parametrize(
    ("tuned", "reference"),
    [
        ("acme/support-7b", "Qwen/Qwen2.5-7B-Instruct"),  # fine-tuned further, under a name of its own
        ("org/model-DPO", "org/model-SFT"),
        ("org/model-Instruct", "org/model-Instruct"),
        ("org/a", "org/b"),
        ("Instruct/model", "org/model"),
    ],
)
def test_names_that_say_nothing_of_the_kind(tuned, reference):
    assert not swapped(tuned, reference)


def test_the_behaviors_are_named():
    recipe = Recipe(
        base="org/large",
        behaviors={
            "undo": BehaviorDelta(tuned="org/model", reference="org/model-Instruct"),
            "chat": BehaviorDelta(tuned="org/model-Instruct", reference="org/model"),
            "house": BehaviorDelta(adapter="org/lora", reference="org/model-Instruct"),
            "brief": BehaviorDelta(prompt="Be brief."),
        },
    )
    assert list(swapped_behaviors(recipe)) == ["undo"]
