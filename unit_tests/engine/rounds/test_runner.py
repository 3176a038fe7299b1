"""What a runner keeps and records when an engine opens."""

import pytest
import torch

from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds import runner
from unit_tests.helpers import engine_of

SETTINGS = {"kv_cache_tokens": 256, "cuda_graph_batch_sizes": (1,)}


@pytest.mark.parametrize(
    ("device", "small_device", "looks"),
    [("cpu", "cpu", True), ("cuda:0", "cuda:0", False), ("cuda:0", "cpu", True)],
)
def test_the_host_looks_except_where_one_gpu_holds_all_models(device, small_device, looks):
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
