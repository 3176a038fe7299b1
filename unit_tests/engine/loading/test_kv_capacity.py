"""Memory for keys and values that does not fit is refused."""

import pytest

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.loading import kv_capacity


@pytest.mark.parametrize("tokens", [None, 10**15])
def test_no_memory_for_keys_and_values_says_how_much_is_missing(family, monkeypatch, tokens):
    monkeypatch.setattr(kv_capacity, "free_memory", lambda device: 100)
    with pytest.raises(InsufficientMemoryError, match=r"0\.00 GiB are free on cpu.*kv_cache_tokens"):
        Engine(family.recipe, EngineConfig(kv_cache_tokens=tokens))
