"""Compiled passes give the same answers."""

import pytest
import torch

from langchain_eft.engine.attention import paged
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RecipeError
from unit_tests.engine.scheduling.test_speculator import PROMPT, run
from unit_tests.helpers import without_kernels

SETTINGS = {"kv_cache_tokens": 4096, "block_size": 4, "max_num_batched_tokens": 32, "static_rounds": True}


@pytest.mark.slow
def test_compiled_passes_change_nothing(family, reference, monkeypatch):
    """The passes compile as whole graphs. What the GPU's compiler makes of the graphs is not tested here."""
    monkeypatch.setattr(paged, "attends_in_place", lambda query: False)  # not part of graphs
    plain = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda module, **kwargs: plain(module, backend="eager", fullgraph=True, **kwargs)
    )
    with without_kernels():  # as on a GPU
        engine = Engine(family.recipe, EngineConfig(**SETTINGS, compile=True))
    try:
        tokens, _ = run(engine, mixture={"one": 1.0}, tokens=2, speculation=0)
    finally:
        engine.close()
    assert tokens == reference.greedy(PROMPT, {"one": 1.0}, 2)


def test_compilation_without_static_rounds_is_refused(family):
    with pytest.raises(RecipeError, match=r"compile=True compiles static rounds.*static_rounds=True"):
        Engine(family.recipe, EngineConfig(compile=True))
