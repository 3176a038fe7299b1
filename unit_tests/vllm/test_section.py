"""The section `eft` of config.json: what it refuses, and that it survives a file."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.schedules import Ramp
from langchain_eft.vllm.section import EFTSection, id_ranges

SECTION = {
    "base_name": "owner/base",
    "base_architectures": ["LlamaForCausalLM"],
    "models": {
        "reference": {"subfolder": "eft/reference"},
        "pirate": {"subfolder": "eft/pirate", "adapter_of": "reference"},
    },
    "behaviors": {"pirate": {"tuned": "pirate", "reference": "reference"}},
    "mixture": {"pirate": {"start": 1, "end": 0, "tokens": 8}},
    "vocabulary_size": 512,
    "common": [[0, 500], [502, 512]],
    "unscaled": [501],
    "end_ids": [2],
    "window": 2048,
}


def test_a_section_survives_a_file():
    section = EFTSection.of({"eft": SECTION})

    again = EFTSection.of(json.loads(json.dumps({"eft": section.model_dump(mode="json")})))

    assert again == section
    assert again.default_mixture.weights == {"pirate": Ramp(start=1, end=0, tokens=8)}
    assert again.models["pirate"].adapter_of == "reference"
    assert again.common_ids == frozenset(range(512)) - {500, 501}


def test_the_configuration_may_be_an_object():
    assert EFTSection.of(SimpleNamespace(eft=SECTION)) == EFTSection.of({"eft": SECTION})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2.*reads version 1"),
        ({"mixture": {"tools": 1.0}}, "Unknown behavior 'tools'"),
        ({"mixture": {"pirate": -1.0}}, "negative weights"),
        ({"mixture": {"pirate": "nan"}}, "finite numbers"),
        ({"behaviors": {"pirate": {"tuned": "parrot", "reference": "reference"}}}, "'parrot'"),
        ({"models": {"base": {"subfolder": "eft/base"}}}, "'base'"),
        (
            {
                "models": {
                    "pirate": {"subfolder": "a", "adapter_of": "tools"},
                    "tools": {"subfolder": "b", "adapter_of": "base"},
                }
            },
            "added to 'tools'",
        ),
        ({"models": {"pirate": {"source": "owner/pirate"}}}, "source"),
        ({"end_ids": None}, "end_ids"),
        ({"windows": 7}, "windows"),
    ],
)
def test_a_wrong_section_is_refused(change, message):
    with pytest.raises(RecipeError, match=message):
        EFTSection.of({"eft": SECTION | change})


@pytest.mark.parametrize("config", [{}, SimpleNamespace(), {"eft": "yes"}])
def test_a_missing_section_is_refused(config):
    with pytest.raises(RecipeError, match=r"no section 'eft'.*langchain-eft export"):
        EFTSection.of(config)


def test_negative_weights_are_allowed_by_the_recipe_alone():
    section = EFTSection.of({"eft": SECTION | {"mixture": {"pirate": -1.0}, "allow_negative_weights": True}})

    assert section.recipe.allow_negative_weights


@given(st.frozensets(st.integers(0, 60)))
def test_ranges_hold_the_same_ids(ids):
    ranges = id_ranges(ids)

    assert {i for first, end in ranges for i in range(first, end)} == ids
    assert all(end < first for (_, end), (first, _) in pairwise(ranges))
