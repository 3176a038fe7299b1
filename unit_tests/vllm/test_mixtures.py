"""What a request to vLLM may say, and the formula that it becomes."""

from __future__ import annotations

import pytest

from langchain_eft.engine.decoding.formula import build_formula
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.vllm.mixtures import request_formula
from langchain_eft.vllm.section import EFTSection

SECTION = {
    "base_name": "owner/base",
    "base_architectures": ["LlamaForCausalLM"],
    "models": {
        "reference": {"subfolder": "eft/reference"},
        "pirate": {"subfolder": "eft/pirate", "adapter_of": "reference"},
        "concise": {"subfolder": "eft/concise", "adapter_of": "reference"},
        "other-reference": {"subfolder": "eft/other-reference"},
        "other": {"subfolder": "eft/other"},
        "backwards": {"subfolder": "eft/backwards", "adapter_of": "reference", "negated": True},
        "own": {"subfolder": "eft/own", "adapter_of": "base"},
    },
    "behaviors": {
        "pirate": {"tuned": "pirate", "reference": "reference"},
        "concise": {"tuned": "concise", "reference": "reference"},
        "other": {"tuned": "other", "reference": "other-reference"},
        "backwards": {"tuned": "backwards", "reference": "reference"},
        "own": {"tuned": "own", "reference": "base"},
        "undo": {"tuned": "reference", "reference": "pirate"},
    },
    "mixture": {"pirate": 1.0},
    "vocabulary_size": 512,
    "common": [[0, 512]],
    "end_ids": [2],
    "window": 2048,
}


def section(**changes) -> EFTSection:
    return EFTSection.of({"eft": SECTION | changes})


PAIRS = {name: (b["tuned"], b["reference"]) for name, b in SECTION["behaviors"].items()}


@pytest.mark.parametrize(
    ("xargs", "weights", "settings"),
    [
        (None, {"pirate": 1.0}, ()),
        ({}, {"pirate": 1.0}, ()),
        ({"mixture": "none"}, {}, ()),
        ({"mixture": "pirate=0.5, concise=1"}, {"concise": 1.0, "pirate": 0.5}, ()),
        ({"mixture": "pirate=1..0/32"}, {"pirate": Ramp(start=1, end=0, tokens=32)}, ()),
        ({"mixture": "pirate=1/16:0.3"}, {"pirate": FirstTokens(tokens=16, weight=1, then=0.3)}, ()),
        ({"mixture": "pirate=1", "upscale_strength": 2}, {"pirate": 1.0}, (2.0,)),
        ({"upscale_strength": 0.5, "upscale_top_p": 0.9}, {"pirate": 1.0}, (0.5, 0.9)),
        ({"mixture": "pirate=0"}, {}, ()),
        ({"kv_transfer_params": {"x": 1}}, {"pirate": 1.0}, ()),
    ],
)
def test_arguments_become_the_formula_of_the_engine(xargs, weights, settings):
    formula = request_formula(section(), xargs)

    expected = build_formula("base", PAIRS, weights, *settings)
    assert [formula.at(i) for i in range(40)] == [expected.at(i) for i in range(40)]
    assert (formula.upscale_strength, formula.upscale_top_p) == (
        expected.upscale_strength,
        expected.upscale_top_p,
    )


def test_unscaled_tokens_make_the_formula_conservative():
    assert request_formula(section(unscaled=[5]), None).conservative
    assert not request_formula(section(unscaled=[5]), {"mixture": "none"}).conservative
    assert not request_formula(section(), None).conservative


@pytest.mark.parametrize(
    ("xargs", "message"),
    [
        ({"mixtures": "pirate=1"}, "'mixtures'.*use 'mixture', 'upscale_strength', 'upscale_top_p'"),
        ({"mixture": {"pirate": 1}}, "mixture=.*string"),
        ({"mixture": 1}, "mixture=1.*string"),
        ({"mixture": ""}, "'' is not a valid part of a mixture"),
        ({"mixture": "pirate=lots"}, "'pirate=lots'.*NAME=WEIGHT"),
        ({"mixture": "pirate=1,pirate=2"}, "twice"),
        ({"mixture": "parrot=1"}, "Unknown behavior 'parrot'.*'pirate'"),
        ({"mixture": "pirate=-1"}, "negative weights"),
        ({"mixture": "pirate=nan"}, "finite numbers"),
        ({"mixture": "pirate=inf"}, "finite numbers"),
        ({"mixture": "pirate=1..-1/8"}, "falls to -1"),
        ({"mixture": "own=2"}, "base 'owner/base' the exponent -1"),
        ({"mixture": "pirate=1,undo=2"}, "tuned model of behavior 'pirate' the exponent -1"),
        ({"mixture": "backwards=1"}, "negative `lora_alpha`"),
        ({"upscale_strength": "much"}, "upscale_strength='much'"),
        ({"upscale_strength": True}, "upscale_strength=True"),
        ({"upscale_strength": -1}, "upscale_strength=-1"),
        ({"upscale_strength": float("nan")}, "upscale_strength=nan"),
        ({"upscale_top_p": 0}, "upscale_top_p=0"),
        ({"upscale_top_p": 1.5}, "upscale_top_p=1.5"),
        ({"mixture": "pirate=1,other=1", "upscale_strength": 2}, "one common reference"),
        ({"mixture": "none", "upscale_top_p": 0.5}, "one common reference"),
    ],
)
def test_wrong_arguments_are_refused_with_the_value(xargs, message):
    with pytest.raises(ValueError, match=message):
        request_formula(section(), xargs)


@pytest.mark.parametrize("mixture", ["pirate=-1", "own=2", "backwards=1", "pirate=1,undo=2"])
def test_a_section_may_allow_negative_exponents(mixture):
    request_formula(section(allow_negative_weights=True), {"mixture": mixture})


@pytest.mark.parametrize("xargs", [{"mixture": "pirate=1/below0.4,concise=0.5"}, None])
def test_gates_are_refused(xargs):
    gated = section() if xargs else section(mixture={"pirate": {"below": 0.4}})
    with pytest.raises(RecipeError, match=r"'pirate' has a gate, .*a number, a Ramp or FirstTokens"):
        request_formula(gated, xargs)
