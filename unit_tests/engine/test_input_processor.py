"""Requests are checked before they are queued."""

import pytest

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import ContextWindowError, RecipeError, RequestError
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import Recorder, answer, request


def test_max_model_len_bounds_prompt_and_answer(family):
    engine = Engine(family.recipe, EngineConfig(max_model_len=40, kv_cache_tokens=400))
    try:
        assert engine.window == 40
        with pytest.raises(ContextWindowError, match="40"):
            engine.submit(request([5] * 30, max_tokens=11), Recorder())
    finally:
        engine.close()


def test_a_prompt_longer_than_the_window_is_refused_before_decoding(engine):
    generated = engine.stats().generated_tokens
    with pytest.raises(ContextWindowError, match=r"1000 tokens and.* 25 more.*1024") as error:
        engine.submit(request([5] * 1000, max_tokens=25), Recorder())
    assert (error.value.prompt_tokens, error.value.max_tokens, error.value.window) == (1000, 25, 1024)
    assert engine.stats().generated_tokens == generated
    answer(engine, request([5] * 1000, max_tokens=6))


def test_requests_that_cannot_be_served_are_refused(engine):
    with pytest.raises(RecipeError, match=r"'three'.*'full', 'one', 'two'"):
        engine.submit(request([5], {"three": 1.0}), Recorder())
    with pytest.raises(RequestError, match="Token id 9999"):
        engine.submit(request([9999]), Recorder())
    with pytest.raises(RequestError, match="Token id 7777"):
        engine.submit(request([5], sampling=SamplingParams(logit_bias={7777: 1.0})), Recorder())
