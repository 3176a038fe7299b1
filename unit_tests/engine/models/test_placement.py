"""Models go to the devices that the configuration names."""

import pytest
import torch

from langchain_eft.engine.attention.batch import ForwardBatch, QuerySpan, paged_rows
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
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
    batch = ForwardBatch(ids, ids, ids[0], KVPool(32), 4, rows, paged_rows(rows, 4, CPU))
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
