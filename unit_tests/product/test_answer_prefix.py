"""Answers of the LangChain models that begin with given tokens."""

import pytest
from langchain_core.exceptions import ContextOverflowError, ModelInvalidRequestError
from langchain_core.messages import HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.tools import tool

from langchain_eft import EFTLLM, EFTChatModel, EFTTrace

NO_END = {"logit_bias": {0: -100.0}}
DRAWN = {"temperature": 1.0, "top_p": 1.0, "seed": 3, "logprobs": True}


@tool
def wash(twice: bool) -> str:
    """Wash something."""
    return "clean"


SCHEMA = {
    "title": "verdict",
    "type": "object",
    "properties": {"good": {"type": "boolean"}},
    "required": ["good"],
    "additionalProperties": False,
}
FORMS = {
    "free": {},
    "call": {"tools": [wash], "tool_choice": "any"},
    "schema": {"response_format": SCHEMA},
    "call or schema": {"tools": [wash], "response_format": SCHEMA},
}


@pytest.fixture
def llm(tool_settings):
    return EFTChatModel(**tool_settings)


def token_ids(message) -> list[int]:
    return [entry["token_id"] for entry in message.response_metadata["logprobs"]["content"]]


def essence(message):
    """What a caller reads, without what each call draws anew."""
    return message.content, [(call["name"], call["args"]) for call in message.tool_calls]


def streamed(llm, *args, **kwargs):
    return add_ai_message_chunks(*llm.stream(*args, **kwargs))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_beginning_of_an_answer_leads_to_the_answer(llm, form):
    bound = llm.bind_tools(**FORMS[form]) if "tools" in FORMS[form] else llm.bind(**FORMS[form])
    whole = bound.invoke("hi", **DRAWN)
    ids = token_ids(whole)
    for k in (1, 3, len(ids) // 2, len(ids) - 1):
        for begun in (
            bound.invoke("hi", answer_prefix=ids[:k], **DRAWN),
            streamed(bound, "hi", answer_prefix=ids[:k], **DRAWN),
        ):
            assert essence(begun) == essence(whole)
            assert token_ids(begun) == ids[k:]
            assert begun.usage_metadata["output_tokens"] == len(ids) - k
            assert begun.usage_metadata["input_tokens"] == whole.usage_metadata["input_tokens"] + k
            assert begun.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"]


async def test_a_stream_begins_with_the_prefix(llm):
    prefix = llm.tokenizer("Hello").input_ids
    chunks = [chunk async for chunk in llm.astream("hi", answer_prefix=prefix, max_tokens=8, **NO_END)]
    assert chunks[0].content == "Hello"
    assert add_ai_message_chunks(*chunks).content.startswith("Hello")


@pytest.mark.slow
def test_all_answers_of_a_call_begin_with_it(llm):
    prefix = tuple(llm.tokenizer("So ").input_ids)
    asked = {"n": 3, "answer_prefix": prefix, **DRAWN, **NO_END}
    (answers,) = llm.generate([[HumanMessage("hi")]], **asked).generations
    assert len({answer.text for answer in answers}) == 3
    assert all(answer.text.startswith("So ") for answer in answers)


def test_a_trace_is_of_the_tokens_behind_it(llm):
    prefix = llm.tokenizer("So ").input_ids
    message = llm.invoke("hi", answer_prefix=prefix, trace=True, max_tokens=8, **NO_END)
    assert f"So {EFTTrace.from_message(message).text}".startswith(message.content)
    assert len(EFTTrace.from_message(message).tokens) == 8 - len(prefix)


def test_completions_begin_with_it(settings):
    llm = EFTLLM(**settings)
    (generation,) = llm.generate(["hello"], answer_prefix=llm.text_ids(" you"), **NO_END).generations[0]
    assert generation.text.startswith(" you")
    assert generation.generation_info["usage"]["output_tokens"] == 12 - 4


@pytest.mark.parametrize(
    ("prefix", "match"),
    [
        ([9999], "Token id 9999 in `answer_prefix`"),
        ([0], "ends an answer"),
        ("text", "answer_prefix"),
        (["a"], "answer_prefix"),
        ([5] * 12, "max_tokens=12"),
    ],
)
def test_what_no_answer_begins_with_is_refused(llm, prefix, match):
    with pytest.raises(ModelInvalidRequestError, match=match):
        llm.invoke("hi", answer_prefix=prefix, max_tokens=12)


def test_what_does_not_fit_the_window_is_refused_as_too_long(tool_settings):
    del (unset := dict(tool_settings))["max_tokens"]
    with pytest.raises(ContextOverflowError, match="1024"):
        EFTChatModel(**unset).invoke("hi", answer_prefix=[5] * 1100)


def test_a_beginning_that_the_tools_forbid_is_refused(llm):
    bound = llm.bind_tools([wash], tool_choice="any")
    with pytest.raises(ModelInvalidRequestError, match=r"forbids token 1 of 2.*tools"):
        bound.invoke("hi", answer_prefix=llm.tokenizer("hi").input_ids)
