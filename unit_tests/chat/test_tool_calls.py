"""Tools, schemas and all else that LangChain asks of an answer, on random weights: grammars do the rest."""

import asyncio
import json
from typing import Literal, TypedDict

import pytest
from langchain_core.exceptions import ModelInvalidRequestError, OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1

from langchain_eft import EFTLLM, EFTChatModel
from langchain_eft.errors import EFTInvalidRequestError
from unit_tests.helpers import FUZZ, slow


@tool
def paint(color: Literal["red", "green"], twice: bool) -> str:
    """Paint something."""
    return color


@tool
def wash() -> str:
    """Wash something."""
    return ""


class Verdict(BaseModel):
    """A verdict."""

    good: bool
    grade: Literal["a", "b", "c"]


class VerdictV1(BaseModelV1):
    """A verdict."""

    good: bool
    grade: Literal["a", "b", "c"]


class VerdictDict(TypedDict):
    """A verdict."""

    good: bool
    grade: Literal["a", "b", "c"]


@pytest.fixture
def llm(tool_settings):
    return EFTChatModel(**tool_settings)


def check(message, names):
    (call,) = message.tool_calls
    assert call["name"] in names
    assert call["id"].startswith("call_")
    if call["name"] == "paint":
        assert set(call["args"]) == {"color", "twice"}
        assert isinstance(call["args"]["twice"], bool)
    else:
        assert call["args"] == {}
    assert message.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("choice", ["any", "required", True, "paint", {"type": "tool", "name": "wash"}])
def test_a_forced_call_is_made_whatever_the_weights_say(llm, choice):
    bound = llm.bind_tools([paint, wash], tool_choice=choice)
    names = {"paint"} if choice == "paint" else {"wash"} if isinstance(choice, dict) else {"paint", "wash"}
    check(bound.invoke("hi"), names)
    chunks = list(bound.stream("hi"))
    merged = chunks[0]
    for chunk in chunks[1:]:
        merged += chunk
    check(merged, names)
    first = next(part for chunk in chunks for part in chunk.tool_call_chunks)
    assert first["name"] in names
    assert first["id"]
    assert merged.content == ""


def test_a_streamed_call_is_one_block_in_v1_content(llm):
    merged = AIMessageChunk(content="")
    for chunk in llm.bind_tools([paint], tool_choice="any").stream("hi", output_version="v1"):
        merged += chunk
    assert [block["type"] for block in merged.content_blocks] == ["tool_call"]
    assert merged.content_blocks[0]["name"] == "paint"


def test_free_choice_is_the_models_and_none_hides_the_tools(llm):
    tools = [paint, wash]
    plain = llm.invoke("hi", max_tokens=10).content
    assert llm.bind_tools(tools, tool_choice="none").invoke("hi", max_tokens=10).content == plain
    assert llm.bind_tools(tools).invoke("hi", max_tokens=10).tool_calls == []
    assert llm.bind_tools([]).invoke("hi", max_tokens=10).content == plain


def test_a_choice_that_is_not_bound_is_refused(llm):
    with pytest.raises(ModelInvalidRequestError, match=r"dry.*paint.*wash"):
        llm.bind_tools([paint, wash], tool_choice="dry")


def test_tool_histories_render(llm):
    history = [
        HumanMessage("go"),
        AIMessage("", tool_calls=[{"name": "wash", "args": {}, "id": "1"}]),
        ToolMessage("done", tool_call_id="1", status="error"),
    ]
    assert isinstance(llm.bind_tools([wash]).invoke(history, max_tokens=4), AIMessage)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize(
    ("schema", "kind"),
    [(Verdict, Verdict), (VerdictV1, VerdictV1), (VerdictDict, dict), (Verdict.model_json_schema(), dict)],
)
def test_structured_answers_have_the_schema(llm, method, schema, kind):
    structured = llm.with_structured_output(schema, method=method)
    answer = structured.invoke("hi")
    assert isinstance(answer, kind)
    values = answer if kind is dict else answer.dict()
    assert set(values) == {"good", "grade"}
    parts = list(structured.stream("hi"))
    assert parts[-1] == answer
    assert asyncio.run(structured.ainvoke("hi")) == answer


METHODS = ["function_calling", "json_schema", "json_mode"]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_enforces_the_whole_schema(llm, method):
    class Tree(BaseModel):
        """A tree."""

        code: str = Field(pattern="a.?b", max_length=4)
        trees: list["Tree"] = Field(max_length=1)

    for seed in range(FUZZ):
        structured = llm.with_structured_output(
            Tree, method=method, temperature=2.0, seed=seed, max_tokens=400
        )
        assert isinstance(structured.invoke("hi"), Tree)
    choice = {"title": "P", "oneOf": [{"properties": {n: {"const": n}}, "required": [n]} for n in ("a", "b")]}
    assert llm.with_structured_output(choice, method=method).invoke("hi") in ({"a": "a"}, {"b": "b"})


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_enforced_is_an_error_of_langchains_families(llm, method):
    class Big(BaseModel):
        """A big number."""

        n: int = Field(ge=10**30)

    structured = llm.with_structured_output(Big, method=method)
    with pytest.raises(EFTInvalidRequestError, match=r"'Big' cannot be enforced in its field 'n': 10{30}"):
        structured.invoke("hi")
    assert structured.with_fallbacks([RunnableLambda(lambda _: "other")]).invoke("hi") == "other"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tokens", [1, *slow(20)])
def test_an_object_that_is_cut_is_an_error_and_no_object(llm, method, tokens):
    class Long(BaseModel):
        """A long text."""

        text: str = Field(min_length=200)

    for schema in (Long, Long.model_json_schema()):
        structured = llm.with_structured_output(schema, method=method, max_tokens=tokens)
        with pytest.raises(OutputParserException, match="max_tokens"):
            structured.invoke("hi")
        with pytest.raises(OutputParserException, match="max_tokens"):
            list(structured.stream("hi"))
        with pytest.raises(OutputParserException, match="max_tokens"):
            asyncio.run(structured.ainvoke("hi"))
    raw = llm.with_structured_output(Long, method=method, max_tokens=tokens, include_raw=True).invoke("hi")
    assert raw["parsed"] is None
    assert isinstance(raw["parsing_error"], OutputParserException)
    assert raw["raw"].response_metadata["finish_reason"] == "length"


def test_a_call_that_is_cut_is_invalid(llm):
    bound = llm.bind_tools([paint], tool_choice="any")
    whole = bound.invoke("hi").usage_metadata["output_tokens"]
    for tokens in (1, 15, 40, whole - 25, whole - 1):
        parts = list(bound.stream("hi", max_tokens=tokens))
        for message in (bound.invoke("hi", max_tokens=tokens), add_ai_message_chunks(*parts)):
            assert message.response_metadata["finish_reason"] == "length"
            # Only the end of its tag may be missing where the arguments are whole.
            assert all(set(call["args"]) == {"color", "twice"} for call in message.tool_calls)
            assert not message.tool_calls or tokens > whole - 20


def test_raw_answers_come_along_on_request(llm):
    answer = llm.with_structured_output(Verdict, include_raw=True).invoke("hi")
    assert isinstance(answer["raw"], AIMessage)
    assert isinstance(answer["parsed"], Verdict)
    assert answer["parsing_error"] is None


@pytest.mark.parametrize("method", METHODS)
def test_schemas_of_several_types_are_followed(llm, method):
    schema = {
        "title": "P",
        "type": ["object", "null"],
        "properties": {"a": {"enum": ["x"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    prompt = "hi" if method == "json_mode" else "hello"
    assert llm.with_structured_output(schema, method=method, max_tokens=200).invoke(prompt) in (
        {"a": "x"},
        None,
    )


@pytest.mark.parametrize("method", METHODS)
def test_schemas_that_are_nested_too_deep_are_refused(llm, method):
    schema = {"type": "string"}
    for _ in range(900):
        schema = {"title": "P", "type": "object", "properties": {"a": schema}}
    with pytest.raises(ModelInvalidRequestError, match="more than 100 deep"):
        llm.with_structured_output(schema, method=method)


class Amount(BaseModel):
    """An amount."""

    value: float
    most: float = float("inf")


@pytest.mark.parametrize("schema", [Amount, Amount.model_json_schema()])
def test_numbers_beyond_the_range_of_floats_are_an_error(monkeypatch, llm, schema):
    monkeypatch.setattr(EFTChatModel, "_generate", says('{"value": 1e999}'))
    structured = llm.with_structured_output(schema, method="json_schema")
    with pytest.raises(OutputParserException, match="range of 64-bit floats"):
        structured.invoke("hi")
    monkeypatch.setattr(EFTChatModel, "_generate", says('{"value": 1e30}'))
    assert dict(structured.invoke("hi"))["value"] == 1e30


def says(text):
    message = ChatResult(generations=[ChatGeneration(message=AIMessage(text))])
    return lambda *_, **__: message


def test_json_mode_gives_an_object(llm):
    message = llm.bind(response_format={"type": "json_object"}).invoke("hi", seed=1)
    text = message.content
    assert text.startswith("{")
    if message.response_metadata["finish_reason"] == "stop":
        assert isinstance(json.loads(text), dict)


def test_an_unknown_method_is_refused(llm):
    with pytest.raises(ModelInvalidRequestError, match=r"json_yaml.*json_schema"):
        llm.with_structured_output(Verdict, method="json_yaml")


def test_several_answers_share_one_reading_of_the_prompt(llm):
    bound = EFTChatModel(**{**llm.model_dump(exclude_unset=True), "n": 3, "temperature": 1.5, "seed": 4})
    result = bound.generate([[HumanMessage("hello there")]], max_tokens=8)
    texts = [generation.text for generation in result.generations[0]]
    assert len(set(texts)) == 3
    single = llm.invoke("hello there", max_tokens=8, temperature=1.5, seed=5)
    assert single.content == texts[1]
    usage = result.llm_output["token_usage"]
    messages = [generation.message for generation in result.generations[0]]
    assert usage["completion_tokens"] == sum(m.usage_metadata["output_tokens"] for m in messages)
    assert usage["prompt_tokens"] == messages[0].usage_metadata["input_tokens"]
    assert messages[1].usage_metadata["input_token_details"]["cache_read"] > 0
    with pytest.raises(ModelInvalidRequestError, match="n=3 answers cannot be streamed"):
        list(bound.stream("hi"))


@pytest.mark.parametrize("streamed", [False, True])
def test_logprobs_are_reported_for_every_token(llm, streamed):
    if streamed:
        chunks = list(llm.stream("hi", logprobs=True, top_logprobs=2, max_tokens=6))
        message = chunks[0]
        for chunk in chunks[1:]:
            message += chunk
    else:
        message = llm.invoke("hi", logprobs=True, top_logprobs=2, max_tokens=6)
    content = message.response_metadata["logprobs"]["content"]
    assert len(content) == message.usage_metadata["output_tokens"]
    for entry in content:
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) == 2
        assert entry["top_logprobs"][0]["logprob"] == pytest.approx(entry["logprob"])
    assert "logprobs" not in llm.invoke("hi", max_tokens=3).response_metadata


def test_usage_can_be_left_out_of_streams(llm):
    chunks = list(llm.stream("hi", stream_options={"include_usage": False}, max_tokens=3))
    assert all(chunk.usage_metadata is None for chunk in chunks)


def test_tools_count(llm):
    messages = [HumanMessage("hi")]
    assert llm.get_num_tokens_from_messages(messages, [paint]) > llm.get_num_tokens_from_messages(messages)


def test_the_profile_is_known_before_anything_is_loaded(tool_settings):
    profile = EFTChatModel(**tool_settings).profile
    assert profile["max_input_tokens"] == 1024
    assert profile["tool_calling"]
    assert (
        EFTChatModel(**{**tool_settings, "engine_options": {"max_model_len": 99}}).profile["max_input_tokens"]
        == 99
    )


# Beyond the chat model


def test_plain_completion_takes_all_ways_in(tool_settings):
    llm = EFTLLM(**{**tool_settings, "max_tokens": 9})
    text = llm.invoke("one two")
    assert "".join(llm.stream("one two")) == text
    assert asyncio.run(llm.ainvoke("one two")) == text
    result = llm.generate(["one two", "three"])
    assert result.generations[0][0].text == text
    assert result.generations[1][0].generation_info["finish_reason"] in ("stop", "length")
    assert result.llm_output["token_usage"]["completion_tokens"] <= 18
    assert llm.engine is EFTChatModel(**tool_settings).engine
    with pytest.raises(ModelInvalidRequestError, match="tools"):
        llm.invoke("x", tools=[])
