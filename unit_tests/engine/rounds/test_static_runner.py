"""Which engines decode in static rounds, and what they record when they open."""

from types import SimpleNamespace

import pytest
import torch

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import InsufficientMemoryError, RecipeError
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds import round_cache, static_runner, warm_up


def test_models_on_several_devices_have_no_static_rounds(family):
    with pytest.raises(RecipeError, match="static_rounds=True needs all models whole on one device"):
        static_runner.decodes_statically(
            EngineConfig(static_rounds=True),
            Placement(torch.device("cpu"), torch.device("meta"), torch.float32),
        )


SETTINGS = {"kv_cache_tokens": 256, "static_rounds": True, "cuda_graph_batch_sizes": (1,)}


def test_no_more_rounds_are_recorded_at_open_than_are_kept(family, monkeypatch):
    recorded = []

    def recorder(function):
        recorded.append(function.__self__.shape)
        return function

    monkeypatch.setattr(static_runner, "recorder_for", lambda config, device: recorder)
    for module in (static_runner, round_cache):
        monkeypatch.setattr(module, "MAX_SHAPES", 3)
    engine = Engine(family.recipe, EngineConfig(**SETTINGS))
    try:
        assert len(set(recorded)) == 3
        assert all(shape in engine._loop._static._rounds._rounds for shape in recorded)
    finally:
        engine.close()


@pytest.mark.parametrize("kernels", [True, False])
def test_rounds_are_static_where_the_kernels_run(monkeypatch, kernels):
    """Without them, as on a GPU before Ampere, static rounds would copy every context in every round."""
    monkeypatch.setattr(static_runner, "has_kernel", lambda device: kernels)
    device = torch.device("cuda", 0)
    placement = Placement(device, device, torch.bfloat16)
    assert static_runner.decodes_statically(EngineConfig(), placement) is kernels
    assert static_runner.decodes_statically(EngineConfig(static_rounds=True), placement)


@pytest.mark.parametrize(("blocks", "tokens"), [(1, 1), (4, 19), (64, 19)])
def test_warm_up_stays_within_a_small_pool(engine, blocks, tokens):
    family = engine.family
    pools = [KVPool(model.variants * blocks * 8) for model in family.models]
    seen = []
    models = [_Watched(model, seen) for model in family.models]
    state = SimpleNamespace(
        family=SimpleNamespace(models=models, window=64), pools=pools, num_blocks=blocks, block_size=8
    )
    warm_up.run_prompts(state)
    assert max(last for last, _ in seen) < blocks * 8
    assert {count for _, count in seen} == {tokens}


class _Watched:
    """A model that notes the last position and the number of tokens of each pass."""

    def __init__(self, model, seen):
        self.variants, self.device, self._seen = model.variants, model.device, seen

    def __call__(self, batch, *_):
        self._seen.append((int(batch.positions.max()), batch.ids.shape[1]))


def test_no_memory_for_the_first_recordings_is_said_when_the_engine_opens(family, monkeypatch):
    def recorder(function):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(static_runner, "recorder_for", lambda config, device: recorder)
    with pytest.raises(InsufficientMemoryError, match=r"tried to allocate 2 GiB.*lower `kv_cache_fraction`"):
        Engine(family.recipe, EngineConfig(**SETTINGS))
