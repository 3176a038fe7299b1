"""What a runner keeps and records when an engine opens."""

from types import SimpleNamespace

import pytest
import torch

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds import runner, warm_up
from unit_tests.helpers import engine_of

SETTINGS = {"kv_cache_tokens": 256, "cuda_graph_batch_sizes": (1,)}


@pytest.mark.parametrize(
    ("device", "small_device", "kernels", "looks"),
    [
        ("cpu", "cpu", False, True),
        ("cuda:0", "cuda:0", True, False),
        ("cuda:0", "cpu", True, True),
        ("cuda:0", "cuda:0", False, True),  # before Ampere, where padding would copy every context
    ],
)
def test_the_host_looks_except_where_one_gpu_holds_all_models(
    device, small_device, kernels, looks, monkeypatch
):
    monkeypatch.setattr(runner, "has_kernel", lambda _: kernels)
    placement = Placement(torch.device(device), torch.device(small_device), torch.float32)
    assert runner.host_may_look(placement) is looks
    assert runner.overlaps_rounds(placement) is not looks


def test_no_more_rounds_are_recorded_at_open_than_are_kept(family, monkeypatch):
    recorded = []

    def recorder(function):
        recorded.append(function.__self__.shape)
        return function

    monkeypatch.setattr(runner, "recorder_for", lambda config, device: recorder)
    monkeypatch.setattr(runner, "MAX_SHAPES", 3)
    with engine_of(family.recipe, "padded", **SETTINGS) as engine:
        assert len(set(recorded)) == 3
        assert all(shape in engine._loop._runner._rounds for shape in recorded)


@pytest.mark.parametrize(("blocks", "tokens"), [(1, 1), (4, 19), (64, 19)])
def test_warm_up_stays_within_a_small_pool(engine, blocks, tokens):
    family, seen = engine.family, []
    models = [_Watched(model, seen) for model in family.models]
    shared = SimpleNamespace(
        family=SimpleNamespace(models=models, window=64),
        pools=[KVPool(model.variants * blocks * 8) for model in family.models],
        states=[None for _ in family.models],
        num_blocks=blocks,
        block_size=8,
    )
    warm_up.run_prompts(shared)
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

    monkeypatch.setattr(runner, "recorder_for", lambda config, device: recorder)
    message = r"tried to allocate 2 GiB.*lower `kv_cache_fraction`"
    with (
        pytest.raises(InsufficientMemoryError, match=message),
        engine_of(family.recipe, "padded", **SETTINGS),
    ):
        pass
