"""What a server tells its clients: enough to render prompts, and nothing about its machine."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from langchain_eft.engine.cache_folder import CACHE_VARIABLE
from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.errors import CheckpointCacheError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe, read_template
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.presets import load_preset
from langchain_eft.remote.description import Description

CAPACITY = Capacity(max_model_len=100, num_blocks=10, block_size=16)


def describe(recipe, mixture=None) -> Description:
    return Description.of(
        "m",
        recipe,
        Mixture.of(mixture or {}),
        tokenizer="0" * 64,
        end_ids=frozenset({7, 2}),
        capacity=CAPACITY,
    )


@pytest.fixture
def local(family, tmp_path):
    """A recipe of local files: adapters, whole models, templates and prompts."""
    template = tmp_path / "private-folder" / "base.jinja"
    template.parent.mkdir()
    template.write_text("{{ messages[0]['content'] }}")
    return Recipe(
        base=str(family.folder / "base"),
        behaviors={
            **family.recipe.behaviors,
            "gruff": BehaviorDelta(prompt="You are gruff."),
            "sourced": BehaviorDelta(without="document"),
        },
        base_template=template,
        chat_template=template,
        unscaled_tokens=("<user>",),
    )


def test_names_stand_for_local_paths(local, family):
    text = describe(local).model_dump_json()
    assert str(family.folder) not in text
    assert str(Path(family.folder).parent) not in text
    assert "private-folder" not in text
    recipe = describe(local).recipe
    assert (recipe.base, recipe.behaviors["full"].tuned) == ("base", "tuned")
    assert recipe.behaviors["one"].adapter == "one"


def test_hub_ids_and_packaged_models_keep_their_names():
    recipe = Recipe(
        base="Qwen/Qwen2.5-14B",
        behaviors={"chat": BehaviorDelta(tuned="Qwen/a@main", reference="Qwen/b")},
    )
    assert describe(recipe).recipe == recipe
    smol = describe(load_preset("smol").recipe).recipe
    assert smol.base == load_preset("smol").recipe.base.hub
    assert {delta.reference for delta in smol.behaviors.values()} == {"reference"}


def test_it_survives_the_way_to_the_client(local, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    described = describe(local, {"one": 1.0, "gruff": {"start": 0, "end": 1, "tokens": 4}})
    received = Description.model_validate_json(described.model_dump_json())
    assert received == described
    assert received.end_ids == (2, 7)
    recipe = received.local_recipe()
    assert read_template(recipe.base_template) == read_template(local.base_template)
    for name in local.behaviors:
        assert recipe.prompt_names(name) == local.prompt_names(name)
        assert recipe.behaviors[name].prompt == local.behaviors[name].prompt
    assert recipe.unscaled_tokens == local.unscaled_tokens


def test_the_built_in_template_is_sent_as_text(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    described = describe(Recipe(base="a/b", base_template="transcript"))
    assert described.base_template == read_template("transcript")
    assert read_template(described.local_recipe().base_template) == read_template("transcript")


def test_a_template_that_cannot_be_kept_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(CheckpointCacheError, match=CACHE_VARIABLE):
        describe(Recipe(base="owner/model", base_template="transcript")).local_recipe()


@pytest.mark.parametrize("field", ["end_ids", "recipe"])
def test_thousands_of_wrong_values_are_one_error(field):
    """An error of each would take minutes and gigabytes."""
    many = (
        {"behaviors": {str(number): {} for number in range(20_000)}} if field == "recipe" else [""] * 20_000
    )
    with pytest.raises(ValidationError, match=r"2000\d values") as caught:
        Description.model_validate_json(json.dumps({field: many}))
    assert caught.value.error_count() == 1


def test_a_caller_sees_the_behaviors_that_it_may_use(local):
    described = describe(local)
    for_caller = described.for_caller({"one", "gruff"}, Mixture.of({"one": 0.5}))
    assert set(for_caller.recipe.behaviors) == {"one", "gruff"}
    assert for_caller.mixture.as_json() == {"one": 0.5}
    assert "document" not in for_caller.model_dump_json()


def test_other_models_have_another_fingerprint(local):
    one = describe(local)
    assert one.fingerprint == describe(local).fingerprint
    others = [
        describe(local, {"one": 1.0}),
        one.model_copy(update={"tokenizer": "1" * 64}),
        one.model_copy(update={"end_ids": (2,)}),
        describe(local.model_copy(update={"base_template": "transcript"})),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 5
