"""Which engines decode in static rounds, and what they record when they open."""

import pytest
import torch

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import InsufficientMemoryError, RecipeError
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.rounds import round_cache, static_runner


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


def test_no_memory_for_the_first_recordings_is_said_when_the_engine_opens(family, monkeypatch):
    def recorder(function):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(static_runner, "recorder_for", lambda config, device: recorder)
    with pytest.raises(InsufficientMemoryError, match=r"tried to allocate 2 GiB.*lower `kv_cache_fraction`"):
        Engine(family.recipe, EngineConfig(**SETTINGS))
