"""Requests are checked before they are queued."""

import json
import shutil
from contextlib import nullcontext

import pytest
from transformers import LlamaForCausalLM

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import ContextWindowError, RecipeError, RequestError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import Recorder, answer, request
from unit_tests.oracle.adapters import write_adapter


def test_max_model_len_bounds_prompt_and_answer(family):
    engine = Engine(family.recipe, EngineConfig(max_model_len=40, kv_cache_tokens=400))
    try:
        assert engine.window == 40
        with pytest.raises(ContextWindowError, match="40"):
            engine.submit(request([5] * 30, max_tokens=11), Recorder())
    finally:
        engine.close()


def test_a_prompt_longer_than_the_window_is_refused_before_decoding(engine):
    generated = engine.stats().generated_tokens
    with pytest.raises(ContextWindowError, match=r"1000 tokens and.* 25 more.*1024") as error:
        engine.submit(request([5] * 1000, max_tokens=25), Recorder())
    assert (error.value.prompt_tokens, error.value.max_tokens, error.value.window) == (1000, 25, 1024)
    assert engine.stats().generated_tokens == generated
    answer(engine, request([5] * 1000, max_tokens=6))


def test_only_distinct_texts_that_are_read_need_memory(family):
    instruction = BehaviorDelta(prompt="Be brief.")
    behaviors = {"one": instruction, "two": instruction}
    recipe = family.recipe.model_copy(update={"behaviors": behaviors, "allow_negative_weights": True})
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=96, block_size=4))
    asked = {"mixture": {"one": 0.3, "two": 0.3}, "max_tokens": 2}
    try:
        contexts = {"one": (6,) * 40, "two": (6,) * 40, "nobody": (7,) * 40}
        assert answer(engine, request([5] * 40, contexts=contexts, **asked))[1].completion_tokens
        with pytest.raises(ContextWindowError):
            engine.submit(request([5] * 40, contexts={**contexts, "two": (8,) * 40}, **asked), Recorder())
    finally:
        engine.close()


def test_requests_that_cannot_be_served_are_refused(engine):
    with pytest.raises(RecipeError, match=r"'three'.*'full', 'one', 'two'"):
        engine.submit(request([5], {"three": 1.0}), Recorder())
    with pytest.raises(RequestError, match="Token id 9999"):
        engine.submit(request([9999]), Recorder())
    with pytest.raises(RequestError, match="Token id 7777"):
        engine.submit(request([5], sampling=SamplingParams(logit_bias={7777: 1.0})), Recorder())


# Exponents of the base and of tuned models


@pytest.fixture(scope="module")
def realigned(family, tmp_path_factory):
    """A recipe whose base is also a reference, whose tuned model is also one, and with a negated adapter."""
    folder = tmp_path_factory.mktemp("adapters")
    base = LlamaForCausalLM.from_pretrained(family.folder / "base")
    for name in ("own", "other"):
        write_adapter(folder / name, base, ["self_attn.q_proj"], 4)
    shutil.copytree(family.folder / "one", folder / "negated")
    config = json.loads((folder / "negated/adapter_config.json").read_text())
    (folder / "negated/adapter_config.json").write_text(json.dumps({**config, "lora_alpha": -8}))
    models = {name: str(family.folder / name) for name in ("base", "tuned", "reference", "two")}
    adapters = {name: str(folder / name) for name in ("own", "other", "negated")}
    return Recipe(
        base=models["base"],
        behaviors={
            "own": BehaviorDelta(adapter=adapters["own"], reference=models["base"]),
            "other": BehaviorDelta(adapter=adapters["other"], reference=models["base"]),
            "full": BehaviorDelta(tuned=models["tuned"], reference=models["reference"]),
            "late": BehaviorDelta(adapter=models["two"], reference=models["tuned"]),
            "negated": BehaviorDelta(adapter=adapters["negated"], reference=models["reference"]),
            "captain": BehaviorDelta(prompt="You are a captain."),
        },
    )


@pytest.fixture(scope="module")
def realigned_engine(realigned):
    engine = Engine(realigned, EngineConfig(kv_cache_tokens=512))
    yield engine
    engine.close()


NEGATIVE = [
    ({"own": 1.3}, {}, "base .*-0.3"),
    ({"own": 0.6, "other": 0.6}, {}, "base .*-0.2"),
    ({"own": FirstTokens(tokens=5, weight=0.2, then=1.1)}, {}, "base .*-0.1"),
    ({"own": Ramp(start=0, end=1, tokens=9), "other": Ramp(start=0, end=0.5, tokens=2)}, {}, "base .*-0.5"),
    ({"own": 0.5, "full": 1.0}, {"upscale_strength": 0.25}, "base .*-0.25"),
    ({"own": 0.5, "full": 1.0}, {"upscale_top_p": 0.5}, "base .*-0.5"),
    ({"full": 0.5, "late": 1.0}, {}, "'full' .*-0.5"),
    ({"negated": 1.0}, {}, "'negated' .*lora_alpha"),
    ({"negated": FirstTokens(tokens=2, weight=0, then=0.1)}, {}, "'negated' .*lora_alpha"),
]


@pytest.mark.parametrize(("mixture", "settings", "reason"), NEGATIVE)
def test_a_mixture_may_not_divide_by_the_base_or_a_tuned_model(realigned_engine, mixture, settings, reason):
    with pytest.raises(RecipeError, match=f"{reason}.*allow_negative_weights=True"):
        realigned_engine.submit(request([5], mixture, **settings), Recorder())


def test_no_comparison_divides_by_them_either(realigned_engine):
    with pytest.raises(RecipeError, match=r"base .*-0\.3"):
        realigned_engine.compare(request([5], {"own": 1.3}), (6, 7))


@pytest.mark.parametrize(
    "mixture",
    [
        {"own": 1.0},
        {"own": Ramp(start=1, end=0, tokens=3), "other": Ramp(start=0, end=1, tokens=3)},
        {"full": 1.8},
        {"full": 1.0, "late": 1.0},
        {"late": 1.0},
        {"negated": 0.0, "full": 1.0},
        {"captain": 1.8},
    ],
)
def test_references_and_prompts_may_be_divided_by(realigned_engine, mixture):
    captain = {"captain": (9, 5)}
    assert answer(realigned_engine, request([5], mixture, max_tokens=2, contexts=captain))[
        1
    ].completion_tokens


def test_equal_prompts_take_memory_once(realigned_engine):
    prompt, longest = tuple(range(5, 85)), realigned_engine.capacity.max_output_tokens(80)
    for contexts, fits in (({"captain": prompt}, True), ({"captain": (4, *prompt[1:])}, False)):
        asked = request(prompt, {"captain": 0.5}, max_tokens=longest, contexts=contexts)
        with nullcontext() if fits else pytest.raises(ContextWindowError):
            realigned_engine.submit(asked, Recorder()).cancel()


def test_negative_exponents_can_be_allowed(realigned):
    engine = Engine(
        realigned.model_copy(update={"allow_negative_weights": True}), EngineConfig(kv_cache_tokens=512)
    )
    try:
        for mixture, settings, _ in NEGATIVE:
            assert answer(engine, request([5], mixture, max_tokens=2, **settings))[1].completion_tokens
    finally:
        engine.close()
