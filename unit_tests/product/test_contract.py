"""The corners of LangChain's chat-model contract: caches, counts, metadata and parameters that do not fit."""

import pickle
import shutil
import threading

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelError,
    ModelInvalidRequestError,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.tools import tool
from pydantic import BaseModel, ValidationError

from langchain_eft import EFTLLM, EFTChatModel, EFTRewardScorer
from langchain_eft.engine import errors
from langchain_eft.engine.decoding.answer_text import token_bytes
from langchain_eft.engine.registry import find_engine
from langchain_eft.errors import langchain_errors

NO_END = {"logit_bias": {0: -100.0}}


@tool
def wash(twice: bool) -> str:
    """Wash something."""
    return "clean"


class Verdict(BaseModel):
    """A verdict."""

    good: bool
    why: str


@pytest.fixture
def llm(tool_settings):
    return EFTChatModel(**tool_settings)


# LangChain's own cache


class Counting(InMemoryCache):
    """Counts what was found."""

    hits = 0

    def lookup(self, prompt, llm_string):
        stored = super().lookup(prompt, llm_string)
        self.hits += stored is not None
        return stored

    async def alookup(self, prompt, llm_string):
        return self.lookup(prompt, llm_string)


def test_a_cache_never_mixes_recipes_mixtures_or_settings(tool_settings):
    behaviors = tool_settings["behaviors"]
    changes = [
        {},
        {"mixture": {"two": 1.0}},
        {"mixture": {"one": 1.0, "two": 0.5}},
        {"behaviors": {**behaviors, "one": behaviors["two"]}},
        {"model": str(behaviors["full"].tuned), "behaviors": {}, "mixture": {}},
        {"seed": 1},
        {"seed": 2},
        {"temperature": 0.5},
        {"upscale_strength": 2.0},
        {"max_tokens": 7},
        {"stop": ["x"]},
        {"chat_template": None},
        {"chat_template_kwargs": {"x": 1}},
        {"n": 2},
        {"dtype": "bfloat16"},
        {"engine_options": {"max_model_len": 512, "kv_cache_tokens": 2048}},
    ]
    keys = {EFTChatModel(**{**tool_settings, **change})._get_llm_string() for change in changes}
    calls = [
        {"mixture": {"two": 0.3}},
        {"seed": 3},
        {"model": "owner/name"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ]
    keys |= {EFTChatModel(**tool_settings)._get_llm_string(**call) for call in calls}
    assert len(keys) == len(changes) + len(calls)
    plain = [EFTLLM(**{**tool_settings, **change})._identifying_params for change in ({}, {"mixture": {}})]
    assert plain[0] != plain[1]


async def test_a_cache_answers_the_same_call_again_and_no_other(tool_settings):
    cache = Counting()
    llm = EFTChatModel(**{**tool_settings, "cache": cache, "max_tokens": 6})
    first = llm.invoke("hi")
    assert cache.hits == 0
    assert llm.invoke("hi").content == (await llm.ainvoke("hi")).content == first.content
    assert cache.hits == 2
    other = llm.invoke("hi", mixture={"two": 1.0})
    assert cache.hits == 2
    assert other.content != first.content


# Usage and metadata


def test_whole_answers_are_counted_whatever_streams_do(tool_settings):
    llm = EFTChatModel(**{**tool_settings, "stream_usage": False, "max_tokens": 5})
    assert llm.invoke("hi").usage_metadata["output_tokens"] <= 5
    assert all(chunk.usage_metadata is None for chunk in llm.stream("hi"))
    counted = list(llm.stream("hi", stream_options={"include_usage": True}))
    assert [c.usage_metadata is not None for c in counted] == [False] * (len(counted) - 1) + [True]


def test_usage_of_several_prompts_adds_up(llm):
    result = llm.generate([[HumanMessage("a")], [HumanMessage("bcd")]], max_tokens=4, **NO_END)
    usage = result.llm_output["token_usage"]
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8
    assert result.llm_output["model_name"] == llm.model


def test_the_next_turn_reads_the_cache(llm):
    history = [HumanMessage("tell me something long " * 3)]
    first = llm.invoke(history, max_tokens=20, **NO_END)
    second = llm.invoke([*history, first, HumanMessage("more")], max_tokens=4)
    assert (
        second.usage_metadata["input_token_details"]["cache_read"]
        >= first.usage_metadata["input_tokens"] // 2
    )


def test_logprobs_end_with_the_stop_and_cover_bursts(llm):
    whole = llm.invoke("hi", max_tokens=30, **NO_END).content
    stop = whole[8:11]
    options = {"logprobs": True, "top_logprobs": 3, "max_tokens": 30, **NO_END}
    for speculation in ("off", 4):
        message = add_ai_message_chunks(*llm.stream("hi", stop=[stop], speculation=speculation, **options))
        entries = message.response_metadata["logprobs"]["content"]
        assert message.content == whole[: whole.index(stop)]
        assert len(entries) == message.usage_metadata["output_tokens"]
        text = bytes(byte for entry in entries for byte in entry["bytes"])
        assert text.decode(errors="replace").startswith(message.content + stop[:2])


def test_bytes_of_half_characters_are_their_own(llm):
    words = llm.engine.tokenizer
    ids = words("é日").input_ids
    assert b"".join(token_bytes(words, i) for i in ids) == "é日".encode()


@pytest.mark.slow
def test_disable_streaming_is_honored(tool_settings):
    llm = EFTChatModel(**{**tool_settings, "disable_streaming": "tool_calling"})
    assert len(list(llm.bind_tools([wash], tool_choice="any").stream("hi"))) <= 2
    assert len(list(llm.stream("hi", **NO_END))) > 5


def test_traces_carry_versions_and_the_calls_own_model(llm):
    assert set(llm.metadata["lc_versions"]) >= {"langchain-core", "langchain-eft"}
    params = llm._get_ls_params(stop=["x"], model="owner/name", temperature=0.3, max_tokens=9)
    assert params == {
        "ls_provider": "eft", "ls_model_type": "chat", "ls_model_name": "owner/name",
        "ls_temperature": 0.3, "ls_max_tokens": 9, "ls_stop": ["x"],
    }  # fmt: skip


def test_a_call_may_name_another_model(llm, family, tmp_path):
    tuned = str(shutil.copytree(family.folder / "tuned", tmp_path / "tuned"))
    llm.engine.tokenizer.save_pretrained(tuned)
    message = llm.invoke("hi", model=tuned, mixture={}, max_tokens=8, **NO_END)
    assert message.response_metadata["model_name"] == tuned
    assert message.content == EFTChatModel(
        model=tuned, chat_template=llm.chat_template, temperature=0, max_tokens=8, **NO_END
    ).invoke("hi").content  # fmt: skip
    assert message.content != llm.invoke("hi", max_tokens=8, mixture={}, **NO_END).content


# Counting


def test_counting_tokens_loads_no_weights(tool_settings):
    llm = EFTChatModel(**{**tool_settings, "engine_options": {"kv_cache_tokens": 704}})
    messages = [HumanMessage("hi"), AIMessage("", tool_calls=[{"name": "wash", "args": {}, "id": "1"}])]
    count = llm.get_num_tokens_from_messages(messages, [wash])
    assert llm.get_num_tokens("é") == 2
    assert find_engine(llm.recipe, llm.engine_config) is None
    prompt = llm.invoke([*messages, HumanMessage("x")], tools=[wash], max_tokens=1).usage_metadata[
        "input_tokens"
    ]
    assert prompt == count + len(llm.tokenizer("<user> x <end> <assistant> ").input_ids)
    llm.engine.close()


def test_a_counter_of_ones_own_is_used(tool_settings):
    llm = EFTChatModel(**tool_settings, custom_get_token_ids=lambda text: [0] * len(text.split()))
    assert llm.get_num_tokens("one two three") == 3
    assert llm.get_num_tokens_from_messages([HumanMessage("one two")]) == 3  # "Human: one two"


def test_half_characters_are_refused_wherever_text_becomes_tokens(llm, tool_settings):
    half = "hello \ud800"
    calls = [
        lambda: llm.invoke(half),
        lambda: llm.get_num_tokens(half),
        lambda: EFTRewardScorer(llm).invoke({"prompt": "hi", "answers": [half]}),
        lambda: EFTLLM(**tool_settings).invoke(half),
    ]
    for call in calls:
        with pytest.raises(ModelInvalidRequestError, match=r"'hello \\ud800' has the lone surrogate"):
            call()


# Structured output


@pytest.mark.slow
def test_partial_objects_stream(llm):
    for method in ("function_calling", "json_schema"):
        schema = Verdict.model_json_schema()
        schema["properties"]["why"]["maxLength"] = 60  # random weights would fill any answer
        parts = list(llm.with_structured_output(schema, method=method).stream("hi", max_tokens=200))
        assert [set(part) for part in parts if part][:1] == [{"good"}]
        sizes = [len(part) for part in parts]
        assert sizes == sorted(sizes)
        assert len(parts) > 2


def test_json_mode_needs_no_schema_and_the_others_do(llm):
    answer = llm.with_structured_output(method="json_mode", include_raw=True).invoke("hi")
    assert set(answer) == {"raw", "parsed", "parsing_error"}
    with pytest.raises(ModelInvalidRequestError, match=r"schema=None.*'json_mode'"):
        llm.with_structured_output(None)


def test_schemas_need_neither_title_nor_plain_form(llm):
    bare = {"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"]}
    wrapped = {"type": "json_schema", "json_schema": {"name": "v", "schema": bare, "strict": True}}
    for schema in (bare, wrapped):
        for method in ("function_calling", "json_schema"):
            answer = llm.with_structured_output(schema, method=method, strict=True).invoke("hi")
            assert isinstance(answer["good"], bool)


def test_a_failed_parse_is_kept_beside_the_message(tool_settings):
    raw = (
        EFTChatModel(**{**tool_settings, "max_tokens": 3})
        .with_structured_output(Verdict, method="json_schema", include_raw=True)
        .invoke("hi")
    )
    assert raw["parsed"] is None
    assert raw["parsing_error"] is not None
    assert raw["raw"].response_metadata["finish_reason"] == "length"


# Parameters that do not fit


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n": 0}, r"n must be a positive integer.*got 0"),
        ({"n": 10**9}, r"n must be a positive integer, at most 1024, got 1000000000"),
        ({"n": True}, r"got True"),
        ({"n": "2"}, r"got '2'"),
        ({"top_logprobs": 2}, r"top_logprobs=2 has no effect without logprobs=True"),
        ({"logprobs": True, "top_logprobs": 99}, r"top_logprobs=99"),
        ({"timeout": 0}, r"timeout must be a positive number.*got 0"),
        ({"timeout": "5"}, r"timeout must be a positive number.*or None.*got '5'"),
        ({"timeout": float("inf")}, r"timeout must be .*at most \d+, or None for no limit, got inf"),
        ({"stop": 5}, r"stop must be a string, a list of strings, or None, got 5"),
        ({"stop": ["a", 5]}, r"stop\.1=5"),
        ({"mixture": ["pirate"]}, r"is not a mapping.*such as \{'tools': 1\.0\}, or a text such as 'tools=1"),
        ({"mixture": "pirate"}, r"'pirate' is not a valid part of a mixture: write NAME=WEIGHT"),
        ({"mixture": {"one": 1e300}}, r"one=1e\+300: Use finite numbers between -10000 and 10000"),
        ({"upscale_strength": 1e38}, r"upscale_strength=1e\+38: .*less than or equal to 10000"),
        ({"temperature": 5e-324}, r"temperature=5e-324: Use 0 for greedy decoding, or .*from 1e-06"),
        ({"top_k": 2**63}, r"top_k=9223372036854775808: .*less than 9223372036854775808"),
        ({"logit_bias": {5: float("nan")}}, r"logit_bias\.5=nan: .*finite number"),
        ({"seed": 10**5000}, r"seed=<int>: "),
        ({"logit_bias": {10**30: 1.0}}, r"Token id 1000000000000000000000000000000 in `logit_bias`"),
        ({"response_format": {"type": "xml"}}, r"schema=\{'type': 'xml'\}"),
        ({"tool_choice": "any"}, r"tool_choice='any'.*bind tools first"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "nope"}}, "tools": [wash]},
            "nope.*'wash'",
        ),
        ({"tools": [wash, wash]}, r"the name 'wash' 2 times"),
        ({"function_call": "x"}, r"'function_call'"),
    ],
)
async def test_what_does_not_fit_a_call_is_refused_by_name(llm, kwargs, message):
    with pytest.raises(ModelInvalidRequestError, match=message):
        llm.invoke("hi", **kwargs)
    with pytest.raises(ModelInvalidRequestError, match=message):
        await llm.ainvoke("hi", **kwargs)


async def test_the_longest_timeout_is_waited_for(llm):
    longest = {"timeout": threading.TIMEOUT_MAX, "max_tokens": 1}
    assert llm.invoke("hi", **longest).content == (await llm.ainvoke("hi", **longest)).content


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"top_logprobs": 2}, "top_logprobs=2"),
        ({"timeout": float("inf")}, "timeout must be .*got inf"),
        ({"mixture": {"one": 1e38}}, r"one=1e\+38: Use finite"),
        ({"mixture": ["one"]}, r"mixture=\['one'\] is not a mapping"),
        ({"mixture": "one=1,one=2"}, r"'one' is in the mixture twice"),
        ({"model": ""}, r"model='' is neither a preset.*nor a hub id.*'smol'"),
    ],
)
def test_what_does_not_fit_a_model_is_refused_when_it_is_built(tool_settings, kwargs, message):
    with pytest.raises(ValidationError, match=message) as caught:
        EFTChatModel(**{**tool_settings, **kwargs})
    assert "Value error" not in str(caught.value)
    assert "https://" not in str(caught.value)


# Errors


def engine_errors(kind=errors.EngineError):
    return [kind, *(sub for child in kind.__subclasses__() for sub in engine_errors(child))]


@pytest.mark.parametrize(
    "kind",
    [k for k in engine_errors()[1:] if k.__module__ == errors.__name__],
    ids=lambda kind: kind.__name__,
)
def test_every_engine_error_is_also_one_of_langchains(kind):
    error = kind("what, value, remedy")
    with pytest.raises(ModelError, match="what, value, remedy") as caught, langchain_errors():
        raise error
    assert isinstance(caught.value, kind)
    assert caught.value.__cause__ is error


def test_errors_of_calls_survive_pickling():
    with pytest.raises(ContextOverflowError) as caught, langchain_errors():
        raise errors.ContextWindowError.of(10, 5, 12)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (type(copy), str(copy), copy.window) == (type(caught.value), str(caught.value), 12)


def test_an_error_says_whether_a_retry_helps():
    for is_retryable in (True, False):
        with pytest.raises(ModelAPIError) as caught, langchain_errors():
            raise errors.DecodingError("lost", is_retryable=is_retryable)
        assert caught.value.is_retryable is is_retryable


def test_closing_an_engine_is_worth_a_retry(llm):
    stream = llm.stream("hi", max_tokens=300, **NO_END)
    next(stream)
    llm.engine.close()
    with pytest.raises(ModelAPIError) as caught:
        list(stream)
    assert caught.value.is_retryable
    assert llm.with_retry().invoke("hi", max_tokens=2).content is not None
