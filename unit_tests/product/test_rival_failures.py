"""What local chat models for LangChain get wrong today, one test for each failure that no other file tests.

Found in langchain-huggingface 1.2.3 (ChatHuggingFace over HuggingFacePipeline) and langchain-community 0.4.2
(ChatLlamaCpp, ChatMLX), by running them.
"""

import gc
import threading
import time
import weakref

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ModelAPIError
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.tools import tool

from langchain_eft import EFTChatModel
from langchain_eft.engine.request import GenerationRequest
from unit_tests.helpers import failing_rounds, wait_until, watched_rounds

NO_END = {"logit_bias": {0: -100.0}}


@tool
def wash(twice: bool) -> str:
    """Wash something."""
    return "clean"


@pytest.fixture
def llm(tool_settings):
    return EFTChatModel(**{**tool_settings, "max_tokens": 24})


@pytest.fixture
def whole(llm):
    """An answer to "hi", for tests that cut it."""
    return llm.invoke("hi", **NO_END).content


def streamed(llm, *args, **kwargs):
    return add_ai_message_chunks(*llm.stream(*args, **kwargs))


# ChatHuggingFace over HuggingFacePipeline


def test_stop_strings_of_many_tokens_never_match_in_streams(llm, whole):
    stop = whole[4:9]
    assert len(llm.engine.tokenizer(stop).input_ids) > 1
    message = streamed(llm, "hi", stop=["never said", stop], **NO_END)
    assert message.content == whole[: whole.index(stop)]
    assert message.response_metadata["finish_reason"] == "stop"


def test_bound_tools_never_reach_the_template(llm):
    with_tools, plain = llm.bind_tools([wash]).invoke("hi", max_tokens=1), llm.invoke("hi", max_tokens=1)
    more = with_tools.usage_metadata["input_tokens"] - plain.usage_metadata["input_tokens"]
    assert more == len(llm.engine.tokenizer("<tool> wash ").input_ids)


def test_tool_calls_are_always_empty(llm):
    (call,) = llm.bind_tools([wash], tool_choice="any").invoke("hi", max_tokens=90).tool_calls
    assert (call["name"], type(call["args"]["twice"])) == ("wash", bool)


def test_closing_a_stream_leaves_a_thread_decoding(llm):
    before = llm.engine.stats().generated_tokens
    stream = llm.stream("hi", max_tokens=900, **NO_END)
    next(stream)
    stream.close()
    wait_until(lambda: not llm.engine.stats().running)
    generated = llm.engine.stats().generated_tokens
    time.sleep(0.2)
    assert llm.engine.stats().generated_tokens == generated < before + 900


def test_an_exception_while_decoding_is_invisible_for_a_minute(llm):
    stream = llm.stream("hi", max_tokens=900, **NO_END)
    next(stream)
    start = time.monotonic()
    with failing_rounds("device lost"), pytest.raises(ModelAPIError, match="device lost"):
        list(stream)
    assert time.monotonic() - start < 60


def test_the_tokenizer_is_fetched_a_second_time(llm, monkeypatch):
    engine = llm.engine
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", None)
    assert llm.get_num_tokens("hi") == 2
    assert llm.tokenizer is engine.tokenizer


@pytest.mark.slow
def test_a_model_is_never_unloaded(tool_settings):
    llm = EFTChatModel(**{**tool_settings, "engine_options": {"kv_cache_tokens": 576}})
    weights = weakref.ref(llm.engine.family.models[0].module)
    llm.engine.close()
    gc.collect()
    assert weights() is None


def test_tracers_learn_no_model_name(llm):
    seen = {}

    class Tracer(BaseCallbackHandler):
        def on_chat_model_start(self, serialized, messages, *, metadata=None, **kwargs):
            seen.update(metadata)

    llm.invoke("hi", config={"callbacks": [Tracer()]}, max_tokens=2)
    assert (seen["ls_provider"], seen["ls_model_name"], seen["ls_model_type"]) == ("eft", llm.model, "chat")
    assert seen["ls_max_tokens"] == 2
    assert "langchain-eft" in seen["lc_versions"]


# ChatLlamaCpp


def test_invoke_that_streams_drops_the_stop(tool_settings, whole):
    stop = whole[5:8]
    llm = EFTChatModel(**{**tool_settings, "streaming": True, "max_tokens": 24})
    assert llm.invoke("hi", stop=[stop], **NO_END).content == whole[: whole.index(stop)]


def test_a_batch_enters_the_native_handle_from_many_threads(llm):
    inside, threads = threading.Semaphore(1), set()

    def enter(rows, run):
        assert inside.acquire(blocking=False), "two threads at once"
        threads.add(threading.get_ident())
        try:
            return run()
        finally:
            inside.release()

    with watched_rounds(enter):
        messages = llm.batch(["a", "b", "c", "d"], **NO_END)
    assert [m.response_metadata["finish_reason"] for m in messages] == ["length"] * 4
    assert len(threads) == 1


def test_the_window_is_not_the_models_own(llm):
    assert llm.engine.window == llm.profile["max_input_tokens"] == 1024


# ChatMLX


def test_characters_of_several_tokens_come_out_broken(llm):
    text = "日本 👩‍🚀"
    script = [*llm.engine.tokenizer(text).input_ids]
    grammar = f'start: "{text}"'
    request = GenerationRequest(prompt_ids=tuple(script), grammar=grammar)
    deltas = [event.text for event in llm.engine.stream(request) if hasattr(event, "text")]
    assert "".join(deltas) == text
    assert all("\ufffd" not in delta for delta in deltas)
