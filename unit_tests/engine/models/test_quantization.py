"""Bases quantized by torchao or bitsandbytes decode like a reference loop over the same weights."""

import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.models.quantization import bitsandbytes_config, quantize
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from unit_tests.helpers import greedy_answers, request, without_kernels
from unit_tests.tiny import Reference, config, tokenizer

PROMPT = [30, 31, 9, 40, 77]
PROMPTS = ([*range(30, 55)], [9, 9, 8], [*range(100, 110)])


@pytest.fixture(scope="module")
def quantized(family):
    config = EngineConfig(device="cpu", kv_cache_tokens=1024, block_size=4, quantization="int8")
    with without_kernels():
        engine = Engine(family.recipe, config)
    yield engine
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("mixture", [{}, {"one": 1.0}, {"full": 0.5, "two": 0.5}])
def test_a_quantized_base_decodes_like_a_plain_loop_over_it(quantized, family, mixture):
    plain = Reference(family)
    plain.base = LlamaForCausalLM.from_pretrained(family.folder / "base").eval().requires_grad_(False)
    quantize(plain.base, "int8", None)
    assert greedy_answers(quantized, PROMPTS, mixture) == [
        plain.greedy(prompt, mixture, 8) for prompt in PROMPTS
    ]


def test_the_size_of_quantized_weights_is_their_stored_size(quantized, family):
    with without_kernels():
        engine = Engine(family.recipe, EngineConfig(device="cpu", kv_cache_tokens=64))
    engine.close()
    base = LlamaForCausalLM.from_pretrained(family.folder / "base")
    linear = [m.weight for n, m in base.named_modules() if n.endswith("_proj")]
    saved = engine.family.weight_bytes - quantized.family.weight_bytes
    scales = sum(weight.shape[0] for weight in linear)
    assert saved == pytest.approx(3 * sum(weight.numel() for weight in linear) - 8 * scales, abs=4 * scales)
    assert sum(quantized.family.sizes[1:]) == sum(engine.family.sizes[1:]), "only the base is quantized"


def test_fp8_needs_a_gpu_that_computes_in_it(family):
    with pytest.raises(RecipeError, match=r"'fp8' needs a GPU.*use 'int8'"):
        Engine(family.recipe, EngineConfig(device="cpu", quantization="fp8"))


def test_a_missing_torchao_is_reported(family, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with without_kernels(), pytest.raises(RecipeError, match=r'pip install "langchain-eft\[quantization\]"'):
        Engine(family.recipe, EngineConfig(device="cpu", quantization="int8"))


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    """A base whose layers are wide enough for blocks of 64 weights, and a small pair."""
    folder = tmp_path_factory.mktemp("trio")
    torch.manual_seed(0)
    modules = {
        "base": LlamaForCausalLM(config(64, 2, 260)).eval(),
        "reference": LlamaForCausalLM(config(32, 2, 260)).eval(),
        "tuned": LlamaForCausalLM(config(32, 2, 260)).eval(),
    }
    for name, module in modules.items():
        module.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    delta = BehaviorDelta(tuned=str(folder / "tuned"), reference=str(folder / "reference"))
    return Recipe(base=str(folder / "base"), behaviors={"chat": delta}), modules


def test_a_base_quantized_while_loading_decodes_like_its_own_forward_pass(trio):
    recipe, plain = trio
    engine = Engine(recipe, EngineConfig(device="cpu", kv_cache_tokens=256, quantization="nf4"))
    try:
        base, *small = [model.module for model in engine.family.models]
        assert base.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
        assert base.lm_head.weight.dtype == torch.float32
        assert {m.model.layers[0].mlp.down_proj.weight.dtype for m in small} == {torch.float32}
        assert engine.family.sizes[0] < 0.6 * sum(p.nbytes for p in plain["base"].parameters())
        events = list(engine.stream(request(PROMPT, {"chat": 1.0}, max_tokens=8, speculation=3)))
    finally:
        engine.close()
    tokens = [token for event in events for token in getattr(event, "tokens", ())]
    quantized = AutoModelForCausalLM.from_pretrained(
        str(recipe.base),
        quantization_config=bitsandbytes_config("nf4", torch.float32),
        dtype=torch.float32,
        device_map={"": "cpu"},
    )
    ids = torch.tensor([[*PROMPT, *tokens[:-1]]])
    with torch.inference_mode():
        total = quantized(ids).logits + plain["tuned"](ids).logits - plain["reference"](ids).logits
    assert tokens == total[0, -len(tokens) :].argmax(-1).tolist()


def test_a_missing_bitsandbytes_is_reported(monkeypatch):
    monkeypatch.setattr("langchain_eft.engine.models.quantization.find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"'nf4' needs bitsandbytes: run `pip install \"langchain-eft"):
        bitsandbytes_config("nf4", torch.float32)
