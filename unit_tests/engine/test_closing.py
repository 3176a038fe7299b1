"""Memory of engines that were closed, or failed to open, comes back at once, even if code keeps them."""

import gc
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import DecodingError, InsufficientMemoryError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
from unit_tests.forked import FORKS
from unit_tests.helpers import PATIENCE, answer, kind_of_rounds, request, slow
from unit_tests.oracle.adapters import write_adapter
from unit_tests.tiny import TARGETS, config, tokenizer


class Weights:
    """Weights and KV memory that were allocated since, and are still alive."""

    def __init__(self) -> None:
        self._earlier = large_tensors()

    def alive(self) -> list[torch.Size]:
        earlier = set(map(id, self._earlier))
        return [tensor.shape for tensor in large_tensors() if id(tensor) not in earlier]


def large_tensors() -> list[torch.Tensor]:
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    return [tensor for tensor in tensors if tensor.numel() > 500]


@pytest.fixture
def weights():
    """Without the garbage collector, which would hide references in circles for a while."""
    gc.collect()
    gc.disable()
    yield Weights()
    gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compact", *slow("padded")])
def test_closing_frees_the_weights_of_engines_that_are_kept(family, weights, kind):
    kept = []
    for _ in range(3):
        with kind_of_rounds(kind):
            engine = Engine(family.recipe, EngineConfig(kv_cache_tokens=256))
        answer(engine, request([5, 6], {"one": 1.0}, max_tokens=4))
        assert weights.alive()
        engine.close()
        kept.append(engine)
    assert weights.alive() == []


@pytest.mark.slow
def test_an_error_of_decoding_keeps_no_weights(family, weights):
    engine = Engine(family.recipe, EngineConfig(kv_cache_tokens=256))

    def failing(module, *_):
        raise RuntimeError("no more memory")

    hook = nn.modules.module.register_module_forward_pre_hook(failing)
    with pytest.raises(DecodingError, match="no more memory") as error:
        answer(engine, request([5, 6]))
    hook.remove()
    assert weights.alive()
    engine.close()
    assert weights.alive() == []
    assert isinstance(error.value.__cause__, RuntimeError)


@pytest.mark.slow
def test_an_error_of_opening_keeps_no_weights(family, weights):
    with pytest.raises(InsufficientMemoryError) as error:
        Engine(family.recipe, EngineConfig(kv_cache_tokens=10**12))
    assert weights.alive() == []
    assert "kv_cache_tokens" in str(error.value)


@pytest.mark.slow
def test_ctrl_c_ends_loading_at_the_next_message(family, weights, monkeypatch):
    messages, begun, plain_close = [], threading.Event(), Engine.close

    def close(engine):
        begun.set()
        plain_close(engine)

    def interrupt(message):
        messages.append(message)
        if message == "Loading reference":
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert begun.wait(PATIENCE)
            time.sleep(0.1)

    monkeypatch.setattr(Engine, "close", close)

    threads, handler = threading.enumerate(), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            Engine(family.recipe, EngineConfig(kv_cache_tokens=256), interrupt)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert threading.enumerate() == threads
    assert messages[-1] == "Loading reference"
    assert weights.alive() == []


def resident_after_closing(recipe: Recipe) -> tuple[list[int], int]:
    """Resident bytes of this process after each of 20 closings, and the bytes of the recipe's weights."""
    torch.set_num_threads(1)
    resident = []
    for _ in range(20):
        engine = Engine(recipe, EngineConfig(kv_cache_tokens=256))
        answer(engine, request([5, 6], {"one": 1.0}, max_tokens=4))
        size = engine.stats().weight_bytes
        engine.close()
        resident.append(psutil.Process().memory_info().rss)
    return resident, size


@pytest.mark.slow
def test_resident_memory_comes_back(tmp_path):
    """In a process of its own: other tests allocate too."""
    base, small = (LlamaForCausalLM(config(512, layers, len(tokenizer()))) for layers in (12, 4))
    for name, model in (("base", base), ("reference", small)):
        model.save_pretrained(tmp_path / name)
        tokenizer().save_pretrained(tmp_path / name)
    write_adapter(tmp_path / "one", small, TARGETS["one"], rank=4)
    recipe = Recipe(
        base=str(tmp_path / "base"), behaviors={"one": BehaviorDelta(adapter=str(tmp_path / "one"))}
    )
    with ProcessPoolExecutor(1, FORKS) as pool:
        resident, size = pool.submit(resident_after_closing, recipe).result()
    assert size > 100 * 2**20
    # The first opening imports code, and fills caches that stay.
    assert max(resident[1:]) < resident[0] + size / 4, [f"{each >> 20} MiB" for each in resident]
