"""Hybrid models in the engine: one text for a seed, whatever runs beside it, before it, or drafts for it."""

import random

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from langchain_eft.engine.analysis.scoring import ScoredPrompt, answer_logprobs
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.decoding.formula import build_formula
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loop import DecodingLoop
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.lora import LoraAdapter
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from langchain_eft.engine.request import SamplingParams
from unit_tests.engine.models.families import GROUPED, HYBRIDS, configuration, require
from unit_tests.engine.models.test_self_check import build, save
from unit_tests.helpers import (
    KINDS_OF_ROUNDS,
    Recorder,
    engine_of,
    failing_rows,
    finished,
    no_memory,
    request,
    wait_until,
)

SETTINGS = {"kv_cache_tokens": 2048, "block_size": 4, "max_num_batched_tokens": 64, "max_batch_size": 9}
NEVER_ENDS = {0: -100.0}
KINDS = [
    "qwen3_5_text",
    *(pytest.param(kind, marks=pytest.mark.full) for kind in HYBRIDS if "5_text" not in kind),
]


def prompts(count=6) -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(5, 200) for _ in range(length)] for length in (3, 18, 25, 40, 61, 9)[:count]]


def texts(engine, speculation, *, together=True, mixture=None) -> list[list[int]]:
    """An answer to each prompt, at temperature 1."""
    recorders = []
    for seed, prompt in enumerate(prompts()):
        recorders.append(Recorder())
        sampling = SamplingParams(temperature=1.0, seed=seed, logit_bias=NEVER_ENDS)
        engine.submit(
            request(prompt, mixture or {"b": 0.7}, sampling, max_tokens=20, speculation=speculation),
            recorders[-1],
        )
        if not together:
            wait_until(lambda: recorders[-1].ended)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    return [recorder.tokens for recorder in recorders]


@pytest.fixture(scope="module", params=KINDS)
def hybrid(request, tmp_path_factory):
    """A family, and the texts that it writes alone, without drafts, from empty memory."""
    require(request.param)
    family = build(tmp_path_factory.mktemp("hybrid"), request.param, HYBRIDS[request.param])
    with engine_of(family.recipe, **SETTINGS) as engine:
        return family, texts(engine, 0, together=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS_OF_ROUNDS)
def test_a_seed_has_one_text_with_every_draft_in_company_and_from_cached_prefixes(hybrid, kind):
    family, expected = hybrid
    with engine_of(family.recipe, kind, **SETTINGS) as engine:
        for speculation in (4, 1, "auto", 16):
            assert texts(engine, speculation) == expected
        assert engine.stats().cached_tokens
        assert engine.stats().accepted_tokens


@pytest.mark.slow
def test_preempted_requests_lose_nothing(hybrid):
    family, expected = hybrid
    with engine_of(family.recipe, **{**SETTINGS, "kv_cache_tokens": 120}) as engine:
        assert texts(engine, 4) == expected
        assert engine.stats().preemptions


@pytest.mark.slow
def test_a_pass_that_fails_runs_again_from_where_its_states_were(hybrid, monkeypatch):
    family, expected = hybrid
    attempts = []

    def fails(rows):
        attempts.append(len(rows))
        return len(attempts) in {1, 2, 4, 9}

    with failing_rows(fails, RuntimeError("once")), engine_of(family.recipe, **SETTINGS) as engine:
        anew = []
        start = DecodingLoop._start_anew
        monkeypatch.setattr(DecodingLoop, "_start_anew", lambda loop: (anew.append(1), start(loop)))
        assert texts(engine, 4) == expected
        assert anew


@pytest.mark.slow
def test_given_answers_are_scored_as_full_passes_do(hybrid):
    family, _ = hybrid
    prompt, answers = prompts()[2], [[7, 8, 9, 10], [7, 8, 30], [50]]
    with engine_of(family.recipe, **SETTINGS) as engine:
        tuned = engine.family.behaviors["b"][0]
        alone = build_formula(tuned, {}, {})
        scored = ScoredPrompt(alone, {"": tuple(prompt)}, tuple(map(tuple, answers)))
        steps = answer_logprobs(engine.family, no_memory(engine.family), [scored])
        (found,) = finished(steps).logprobs
    for answer, scores in zip(answers, found, strict=True):
        with torch.inference_mode():
            logits = family.module("tuned")(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
        expected = logits[len(prompt) - 1 : -1].log_softmax(-1)[range(len(answer)), answer]
        assert (torch.as_tensor(scores) - expected).abs().max() < 1e-3


@pytest.mark.slow
def test_a_hybrid_base_mixes_with_small_models_that_attend_everywhere(tmp_path):
    torch.manual_seed(0)
    for name, kind, extra in (
        ("base", "granitemoehybrid", HYBRIDS["granitemoehybrid"]),
        ("reference", "llama", GROUPED),
        ("tuned", "llama", GROUPED),
    ):
        save(AutoModelForCausalLM.from_config(configuration(kind, extra)), tmp_path / name)
    delta = BehaviorDelta(tuned=str(tmp_path / "tuned"), reference=str(tmp_path / "reference"))
    recipe = Recipe(base=str(tmp_path / "base"), behaviors={"b": delta})
    with engine_of(recipe, **SETTINGS) as engine:
        assert texts(engine, 4) == texts(engine, 0, together=False)


@pytest.mark.slow
def test_an_adapter_has_states_of_its_own(tmp_path):
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(configuration("qwen3_5_text", HYBRIDS["qwen3_5_text"]))
    save(module, tmp_path / "base")
    adapted = get_peft_model(module, LoraConfig(r=2, target_modules=["in_proj_qkv", "out_proj", "q_proj"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    delta = BehaviorDelta(adapter=str(tmp_path / "adapter"), reference=str(tmp_path / "base"))
    with engine_of(Recipe(base=str(tmp_path / "base"), behaviors={"b": delta}), **SETTINGS) as engine:
        recorder, prompt = Recorder(), prompts()[3]
        engine.submit(request(prompt, {"b": 1.0}, max_tokens=12, speculation=3), recorder)
        wait_until(lambda: recorder.ended)
    ids = torch.tensor([[*prompt, *recorder.tokens]])
    with torch.inference_mode():  # at weight 1 log p = F
        logits = adapted(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    assert logits.argmax(-1).tolist() == recorder.tokens


def test_an_activated_adapter_of_a_hybrid_is_refused():
    module = AutoModelForCausalLM.from_config(configuration("qwen3_5_text", HYBRIDS["qwen3_5_text"]))
    with pytest.raises(RecipeError, match=r"'judge' is an activated LoRA .*: use a plain LoRA"):
        CausalModel("hybrid", module, [LoraAdapter("judge", {}, invocation=(5,))])


def test_tensor_parallelism_of_a_hybrid_is_refused(tmp_path):
    save(
        AutoModelForCausalLM.from_config(configuration("qwen3_5_text", HYBRIDS["qwen3_5_text"])),
        tmp_path / "base",
    )
    with pytest.raises(RecipeError, match="tensor_parallel=2 cannot divide the recurrent layers"):
        Engine(Recipe(base=str(tmp_path / "base")), EngineConfig(device="cpu", tensor_parallel=2))
