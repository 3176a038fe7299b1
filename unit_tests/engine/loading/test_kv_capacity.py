"""Memory for keys and values: it is taken when the engine opens, and refused if it does not fit."""

from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from langchain_eft.engine import engine
from langchain_eft.engine.attention import kv_pool
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.loading import kv_capacity
from langchain_eft.engine.loading.kv_capacity import count_blocks, workspace
from langchain_eft.engine.models.family import Term

GIB = 2**30


@pytest.mark.parametrize("tokens", [None, 10**15])
def test_no_memory_for_keys_and_values_says_how_much_is_missing(family, monkeypatch, tokens):
    monkeypatch.setattr(kv_capacity, "free_memory", lambda device: 100)
    with pytest.raises(InsufficientMemoryError, match=r"0\.00 GiB are free on cpu.*kv_cache_tokens"):
        Engine(family.recipe, EngineConfig(kv_cache_tokens=tokens))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), MemoryError("no memory")])
def test_keys_and_values_that_cannot_be_allocated_are_refused_when_the_engine_opens(
    family, monkeypatch, error
):
    plain = kv_pool._zeros

    def allocate(shape, like):
        if shape[0] > 256:
            raise error
        return plain(shape, like)

    monkeypatch.setattr(kv_pool, "_zeros", allocate)
    with pytest.raises(InsufficientMemoryError, match=r"512 tokens.*no memory.*lower `kv_cache_tokens`"):
        Engine(family.recipe, EngineConfig(kv_cache_tokens=512))
    Engine(family.recipe, EngineConfig(kv_cache_tokens=64)).close()


def test_memory_is_measured_after_freed_memory_was_returned(family, monkeypatch):
    """PyTorch keeps what loading has freed, and the driver does not count it as free."""
    calls = []
    monkeypatch.setattr(engine, "return_freed_memory", lambda: calls.append("returned"))
    monkeypatch.setattr(kv_capacity, "free_memory", lambda device: calls.append("measured") or GIB)
    engine.Engine(family.recipe, EngineConfig(max_model_len=64)).close()
    assert calls[:2] == ["returned", "measured"]


def test_the_whole_memory_is_no_fraction():
    with pytest.raises(ValidationError, match="kv_cache_fraction"):
        EngineConfig(kv_cache_fraction=1)


def gpu_family(vocabulary=128256):
    """A base and two behaviors of one reference, 1 KiB of keys and values a token each, on a GPU."""
    of_token = {torch.device("cuda", 0): 1024}
    models = [SimpleNamespace(variants=1, bytes_per_token=of_token, states=None) for _ in range(4)]
    return SimpleNamespace(
        models=models,
        base=Term(0),
        behaviors={"a": (Term(2), Term(1)), "b": (Term(3), Term(1))},
        vocabulary=torch.empty(vocabulary, device="meta"),
        weight_bytes=20 * GIB,
    )


def test_a_gpu_keeps_memory_for_its_rounds(monkeypatch):
    family, config = gpu_family(), EngineConfig(kv_cache_fraction=0.9, max_batch_size=32)
    kept = workspace(family, 32)
    positions, terms = 32 * 17, 4
    assert kept >= 2 * GIB + positions * 128256 * (4 * terms + 2 * 8), "logits, and two probabilities"
    normalized = positions * 128256 * 4 * (2 * terms + terms + 3)
    assert kept >= 2 * GIB + normalized, "up-scaling of some tokens: all logits again, normalized, and sums"
    monkeypatch.setattr(kv_capacity, "free_memory", lambda device: 40 * GIB)
    tokens = 16 * count_blocks(family, config, 10**9)
    assert tokens * 4 * 1024 == pytest.approx(0.9 * (40 * GIB - kept), rel=0.001)
    asked = EngineConfig(kv_cache_tokens=2**20, max_batch_size=32)
    assert count_blocks(family, asked, 10**9) == 2**16


def test_a_gpu_without_memory_for_rounds_is_refused(monkeypatch):
    monkeypatch.setattr(kv_capacity, "free_memory", lambda device: 2 * GIB)
    with pytest.raises(InsufficientMemoryError, match=r"keeping \S+ GiB for rounds: lower.*max_batch_size"):
        count_blocks(gpu_family(), EngineConfig(), 4096)
