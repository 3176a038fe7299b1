"""Quantized, divided and tensor-parallel bases decode like a reference loop over the same weights."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaForCausalLM

from langchain_eft.engine.attention.batch import ForwardBatch, QuerySpan, paged_rows
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import InsufficientMemoryError, RecipeError
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.engine.loading.memory import count_weights
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.quantization import quantize
from langchain_eft.engine.recipe.behaviors import Recipe
from unit_tests.helpers import request
from unit_tests.tiny import Reference

CPU = torch.device("cpu")
PROMPTS = ([*range(30, 55)], [9, 9, 8], [*range(100, 110)])


def decode(engine, mixture, steps=8):
    """Greedy answers to `PROMPTS`, decoded together, with drafts."""
    streams = [engine.stream(request(p, mixture, max_tokens=steps, speculation=3)) for p in PROMPTS]
    return [[token for event in stream for token in getattr(event, "tokens", ())] for stream in streams]


@pytest.fixture(scope="module")
def quantized(family):
    engine = Engine(family.recipe, EngineConfig(kv_cache_tokens=1024, block_size=4, quantization="int8"))
    yield engine
    engine.close()


@pytest.mark.parametrize("mixture", [{}, {"one": 1.0}, {"full": 0.5, "two": 0.5}])
def test_a_quantized_base_decodes_like_a_plain_loop_over_it(quantized, family, mixture):
    plain = Reference(family.folder)
    plain.base = LlamaForCausalLM.from_pretrained(family.folder / "base").eval().requires_grad_(False)
    quantize(plain.base, "int8", None)
    assert decode(quantized, mixture) == [plain.greedy(prompt, mixture, 8) for prompt in PROMPTS]


def test_the_size_of_quantized_weights_is_their_stored_size(quantized, family, engine):
    base = LlamaForCausalLM.from_pretrained(family.folder / "base")
    linear = [m.weight for n, m in base.named_modules() if n.endswith("_proj")]
    saved = engine.stats().weight_bytes - quantized.stats().weight_bytes
    scales = sum(weight.shape[0] for weight in linear)
    assert saved == pytest.approx(3 * sum(weight.numel() for weight in linear) - 8 * scales, abs=4 * scales)
    assert sum(quantized.family.sizes[1:]) == sum(engine.family.sizes[1:]), "only the base is quantized"


def test_eight_bits_need_less_memory(family, monkeypatch):
    folder, plain = family.folder / "base", Placement(CPU, CPU, torch.float32)
    eight_bits = Placement(CPU, CPU, torch.float32, quantization="int8")
    half = Placement(CPU, CPU, torch.float32, ranks=2)
    count = count_weights(folder)
    whole, small = count.nbytes(torch.float32), count.nbytes(torch.float32, "int8")
    assert small < 0.5 * whole
    assert count.nbytes(torch.float32, "nf4") < small
    monkeypatch.setattr("langchain_eft.engine.loading.layout.free_memory", lambda device: whole - 1)
    checkpoints = RecipeCheckpoints.find(Recipe(base=str(folder)), Path)
    checkpoints.require_memory(eight_bits)
    checkpoints.require_memory(half)
    with pytest.raises(InsufficientMemoryError, match=r"base: 0\.00 GiB\).*free on cpu: quantize"):
        checkpoints.require_memory(plain)


def test_fp8_needs_a_gpu_that_computes_in_it(family):
    with pytest.raises(RecipeError, match=r"'fp8' needs a GPU.*use 'int8'"):
        Engine(family.recipe, EngineConfig(device="cpu", quantization="fp8"))


def test_a_missing_torchao_is_reported(family, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(RecipeError, match=r"pip install 'langchain-eft\[quantization\]'"):
        Engine(family.recipe, EngineConfig(device="cpu", quantization="int8"))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="takes accelerators where there are any")
def test_a_base_of_two_ranks_decodes_like_a_base_of_one(family, reference, tmp_path):
    """With speculation, several rows and several rounds."""
    reference.small["reference"].save_pretrained(tmp_path)
    complete = {"reference": str(tmp_path)}
    recipe = Recipe(
        base=family.recipe.base,
        behaviors={
            name: delta.model_copy(update=complete) for name, delta in family.recipe.behaviors.items()
        },
    )
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=1024, block_size=4, tensor_parallel=2))
    try:
        for mixture in ({"one": 1.0}, {"full": 0.5, "two": 0.5}):
            assert decode(engine, mixture) == [reference.greedy(p, mixture, 8) for p in PROMPTS]
    finally:
        engine.close()
    assert all(worker.poll() == 0 for worker in engine.family.leader._workers)
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="takes accelerators where there are any")
def test_the_other_ranks_stop_when_the_leader_dies(family):
    script = f"""
import os, signal
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
config = EngineConfig(kv_cache_tokens=64, tensor_parallel=2)
engine = Engine(Recipe(base={str(family.folder / "base")!r}), config)
print(engine.family.leader._workers[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    leader = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    # The follower inherits the output, so the output ends only when the follower has ended too.
    assert leader.returncode == -9
    follower = int(leader.stdout)
    assert not psutil.pid_exists(follower) or psutil.Process(follower).status() == psutil.STATUS_ZOMBIE


def test_a_base_that_cannot_be_divided_is_refused(family):
    with pytest.raises(RecipeError, match="tensor_parallel=3 cannot divide the base's 2 KV heads"):
        Engine(family.recipe, EngineConfig(device="cpu", tensor_parallel=3))
    with pytest.raises(ValidationError, match="tensor_parallel=2 and quantization='int8' exclude"):
        EngineConfig(tensor_parallel=2, quantization="int8")
    with pytest.raises(ValidationError, match="tensor_parallel=2 and device_map='auto' exclude"):
        EngineConfig(tensor_parallel=2, device_map="auto")


def test_a_missing_device_is_named(family):
    with pytest.raises(RecipeError, match="device='cuda:77' is not available"):
        Engine(family.recipe, EngineConfig(device="cpu", small_device="cuda:77"))


def test_a_device_map_does_not_change_answers(family, reference):
    recipe = Recipe(base=str(family.folder / "base"))
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=1024, block_size=4, device_map="auto"))
    try:
        assert decode(engine, {}) == [reference.greedy(prompt, {}, 8) for prompt in PROMPTS]
    finally:
        engine.close()


def test_batches_are_copied_to_the_device_of_a_layer():
    """There is one copy for each device, for all of its layers."""
    rows = [QuerySpan(0, 2, 5, [3, 4])]
    ids = torch.zeros(1, 2, dtype=torch.int64)
    batch = ForwardBatch(ids, ids, ids[0], KVPool(32), 4, rows, paged_rows(rows, 4, CPU))
    assert batch.to("cpu") is batch
    copy = batch.to(torch.device("meta"), non_blocking=True)
    tensors = [copy.ids, copy.positions, copy.variants, copy.paged[0].block_table, copy.paged[0].lengths]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert copy.pool is batch.pool
    assert batch.to("meta") is copy
