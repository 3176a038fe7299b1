"""Models go to the devices that the configuration names."""

import os
from contextlib import contextmanager, nullcontext

import pytest
import torch
from transformers import LlamaForCausalLM

from langchain_eft.engine.attention.batch import ForwardBatch, QuerySpan, paged_rows
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import DeviceLostError, RecipeError
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.recipe.behaviors import Recipe
from unit_tests.helpers import greedy_answers

CPU = torch.device("cpu")
PROMPTS = ([*range(30, 55)], [9, 9, 8], [*range(100, 110)])


def test_a_missing_device_is_named(family):
    with pytest.raises(RecipeError, match="device='cuda:77' is not available"):
        Engine(family.recipe, EngineConfig(device="cpu", small_device="cuda:77"))


def test_a_device_map_does_not_change_answers(family, reference):
    recipe = Recipe(base=str(family.folder / "base"))
    engine = Engine(recipe, EngineConfig(kv_cache_tokens=1024, block_size=4, device_map="auto"))
    try:
        assert greedy_answers(engine, PROMPTS, {}) == [reference.greedy(prompt, {}, 8) for prompt in PROMPTS]
    finally:
        engine.close()


def test_batches_are_copied_to_the_device_of_a_layer():
    """There is one copy for each device, for all of its layers."""
    rows = [QuerySpan(0, 2, 5, [3, 4])]
    ids = torch.zeros(1, 2, dtype=torch.int64)
    batch = ForwardBatch(ids, ids, ids[0], KVPool(32), 4, paged_rows(rows, 4, CPU))
    assert batch.to("cpu") is batch
    copy = batch.to(torch.device("meta"), non_blocking=True)
    tensors = [copy.ids, copy.positions, copy.variants, copy.paged[0].block_table, copy.paged[0].lengths]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert copy.pool is batch.pool
    assert batch.to("meta") is copy


@pytest.mark.parametrize("device", ["cuda:7", "gpu"])
def test_a_device_that_is_not_there_is_named(family, device):
    with pytest.raises(RecipeError, match=f"device='{device}' is not available"):
        Engine(family.recipe, EngineConfig(device=device))


@pytest.mark.parametrize("lost", [False, True])
def test_a_device_that_cannot_be_waited_for_does_not_work(monkeypatch, lost):
    waited = []

    def synchronize(device):
        waited.append(device)
        if lost:
            raise torch.AcceleratorError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    first, second = (torch.device("cuda", index) for index in range(2))
    Placement(CPU, CPU, torch.float32).require_working("a test")
    with pytest.raises(DeviceLostError, match=r"cuda:0 .*\(a test\)") if lost else nullcontext():
        Placement(first, second, torch.float32).require_working("a test")
    assert set(waited) <= {first, second}
    assert len(waited) == (1 if lost else 2)


def test_a_model_runs_while_its_device_is_the_current_one(family, monkeypatch):
    """Triton launches kernels on the current device. The small models may have another one than the base."""
    module = LlamaForCausalLM.from_pretrained(family.folder / "base", attn_implementation=ATTENTION)
    model, current, seen = CausalModel("base", module, []), [], []
    model.device = torch.device("cuda", 1)

    @contextmanager
    def device(index):
        current.append(index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    module.register_forward_hook(lambda *_: seen.append(list(current)))
    model(pack([Chunk([5], 0, 0, [0])], KVPool(1), 1, CPU), [0])
    assert seen == [[model.device]]
    assert current == []


def test_engines_of_tests_decode_on_the_cpu_in_float32_on_every_machine():
    """Their expectations do. `conftest.py` hides GPUs, from child processes too."""
    placement = Placement.of(EngineConfig())
    assert (placement.device, placement.dtype) == (CPU, torch.float32)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
