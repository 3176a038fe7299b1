"""`/v1/chat/completions` says what `EFTChatModel` says in process, in OpenAI's words."""

import asyncio
import json
import re
from functools import reduce
from operator import add

import openai
import pytest
from blockbuster import blockbuster_ctx
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import convert_to_messages
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from unit_tests.engine.decoding.grammar_shapes import referring
from unit_tests.helpers import await_until, failing_rows
from unit_tests.server.leaver import LONG, Leaver
from unit_tests.server.openai_client import MESSAGES, chat, chat_stream, refused

PATH = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}


def function(name, **more):
    return {"type": "function", "function": {"name": name, "description": name, "parameters": SCHEMA, **more}}


TOOLS = [function("wash"), function("dry")]
NAMED = {"type": "function", "function": {"name": "dry"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "dry"}}]},
}
SAMPLED = {"temperature": 1.0, "seed": 7}
ROOM = {"max_tokens": 120}
"""Enough for a call."""

CASES = {
    "greedy": {},
    "sampled": {**SAMPLED, "top_p": 0.8, "top_k": 40, "min_p": 0.01},
    "mixture": {**SAMPLED, "mixture": {"one": 0.5, "two": 0.25, "full": 1}},
    "schedule": {"mixture": {"one": {"start": 1, "end": 0, "tokens": 8}}},
    "base alone": {"mixture": {}},
    "strength": {"upscale_strength": 0.5, "upscale_top_p": 0.9, "speculation": "off"},
    "penalties": {"repetition_penalty": 1.2, "frequency_penalty": 0.5, "presence_penalty": 0.5},
    "bias": {"logit_bias": {"0": -100, "40": 3}, "max_tokens": 9},
    "stop": {**SAMPLED, "stop": ["e", "o"], "max_tokens": 60},
    "tools": {"tools": TOOLS},
    "required": {**ROOM, "tools": TOOLS, "tool_choice": "required"},
    "named": {**ROOM, "tools": TOOLS, "tool_choice": NAMED},
    "several": {**SAMPLED, **ROOM, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": True},
    "at most one": {"tools": TOOLS, "parallel_tool_calls": False},
    "no call": {"tools": TOOLS, "tool_choice": "none"},
    "schema": {**ROOM, "response_format": FORMAT},
    "object": {"response_format": {"type": "json_object"}, "max_tokens": 40},
    "fork": {**SAMPLED, **ROOM, "tools": TOOLS, "response_format": FORMAT},
    "logprobs": {**SAMPLED, "logprobs": True, "top_logprobs": 3, "max_tokens": 12},
    "trace": {"trace": True, "mixture": {"one": 1.0, "two": 0.5}, "max_tokens": 12},
    "n": {**SAMPLED, "n": 3, "max_tokens": 20},
    "n calls": {**SAMPLED, **ROOM, "n": 2, "tools": TOOLS, "tool_choice": "required"},
    "n forks": {**SAMPLED, **ROOM, "n": 2, "tools": TOOLS, "response_format": FORMAT},
}


def in_process(llm, messages, parameters):
    """The answers of the model itself."""
    (generations,) = llm.generate([convert_to_messages(messages)], **parameters).generations
    return [generation.message for generation in generations]


def described(message):
    """What a LangChain message says, in OpenAI's words."""
    metadata = message.response_metadata
    return {
        "content": message.content,
        "calls": [
            (call["name"], call["args"]) for call in (*message.tool_calls, *message.invalid_tool_calls)
        ],
        "reason": metadata["finish_reason"],
        "logprobs": (metadata.get("logprobs") or {}).get("content"),
        "trace": metadata.get("trace"),
        "mixture": metadata["eft"]["mixture"],
        "seed": metadata["eft"]["seed"],
    }


def described_choice(choice):
    message = choice["message"]
    calls = message.get("tool_calls") or ()
    return {
        "content": message["content"] or "",
        "calls": [(call["function"]["name"], _arguments(call["function"]["arguments"])) for call in calls],
        "reason": choice["finish_reason"],
        "logprobs": (choice["logprobs"] or {}).get("content"),
        "trace": choice.get("trace"),
        "mixture": choice["eft"]["mixture"],
        "seed": choice["eft"]["seed"],
    }


def _arguments(text):
    try:
        return json.loads(text)
    except ValueError:  # cut at `max_tokens`
        return text


def gathered(chunks):
    """The choices of a stream, as OpenAI's cookbook puts them together."""
    choices = {}
    for part in (choice for chunk in chunks for choice in chunk["choices"]):
        empty = {"message": {"content": "", "tool_calls": []}, "logprobs": None, "finish_reason": None}
        choice = choices.setdefault(part["index"], empty)
        delta = part["delta"]
        choice["message"]["content"] += delta.get("content") or ""
        for call in delta.get("tool_calls", ()):
            calls = choice["message"]["tool_calls"]
            if call["index"] == len(calls):
                assert call["id"]
                assert call["type"] == "function"
                calls.append({"function": {"name": call["function"]["name"], "arguments": ""}})
            calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
        if part["logprobs"]:
            choice["logprobs"] = choice["logprobs"] or {"content": []}
            choice["logprobs"]["content"] += part["logprobs"]["content"]
        if "trace" in part:
            choice["trace"] = [*choice.get("trace", ()), *part["trace"]]
        if part["finish_reason"]:
            assert choice["finish_reason"] is None
            choice |= {"finish_reason": part["finish_reason"], "eft": part["eft"]}
    return [choices[index] for index in sorted(choices)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
async def test_answers_equal_those_in_process(client, llm, case):
    body = {"seed": 0, "max_tokens": 24, **CASES[case]}
    messages = await asyncio.to_thread(in_process, llm, MESSAGES, body)
    expected = [described(message) for message in messages]
    whole = (await chat(client, **body))["choices"]
    assert [described_choice(choice) for choice in whole] == expected
    streamed = gathered(await chat_stream(client, **body))
    assert [described_choice(choice) for choice in streamed] == expected


async def test_the_cases_are_what_they_are_called(client):
    """They would prove little if no answer called a tool, or all answers were the same."""
    asked = {
        case: await chat(client, **CASES[case]) for case in ("required", "named", "schema", "n", "several")
    }
    calls = {case: asked[case]["choices"][0]["message"].get("tool_calls") for case in asked}
    assert asked["required"]["choices"][0]["finish_reason"] == "tool_calls"
    assert calls["required"][0]["id"].startswith("call_")
    assert calls["named"][0]["function"]["name"] == "dry"
    assert json.loads(asked["schema"]["choices"][0]["message"]["content"]).keys() == {"yes"}
    assert len({choice["message"]["content"] for choice in asked["n"]["choices"]}) > 1
    assert calls["schema"] is None


async def test_a_function_may_be_chosen_among_some(client):
    answer = await chat(client, tools=TOOLS, tool_choice=ALLOWED)
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "dry"


@pytest.mark.slow
async def test_a_strict_function_is_enforced(client, llm):
    body = {**SAMPLED, "max_tokens": 60, "tools": [function("wash", strict=True)]}
    expected = await asyncio.to_thread(in_process, llm, MESSAGES, {**body, "strict": True})
    assert (await chat(client, **body))["choices"][0]["message"]["content"] == expected[0].content


async def test_usage_counts_each_prompt_once(client):
    whole = await chat(client, n=3, max_tokens=5, logit_bias={"0": -100})
    usage = whole["usage"]
    assert usage["completion_tokens"] == 15
    assert usage["total_tokens"] == usage["prompt_tokens"] + 15
    assert usage["prompt_tokens"] < 3 * len("<user> hi <end> <assistant> ")
    assert usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]


@pytest.mark.parametrize("n", [1, 2])
async def test_streams_count_tokens_if_asked(client, n):
    body = {"n": n, "max_tokens": 5, "logit_bias": {"0": -100}}
    *chunks, last = await chat_stream(client, **body, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 5 * n
    assert all(chunk["usage"] is None for chunk in chunks)
    assert "usage" not in (await chat_stream(client, **body))[-1]


async def test_a_stream_begins_with_the_role_and_has_one_id(client):
    chunks = await chat_stream(client, n=2, max_tokens=4)
    first = {}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        first.setdefault(choice["index"], choice["delta"])
    assert all(delta["role"] == "assistant" for delta in first.values())
    assert sorted(first) == [0, 1]
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_token_ids_are_reported_if_asked(client, llm):
    body = {"max_tokens": 12, "return_token_ids": True, "logprobs": True, "n": 2, **SAMPLED}
    whole = await chat(client, **body)
    prompt = whole["prompt_token_ids"]
    assert llm.tokenizer.decode(prompt).startswith("<user> hi")
    first, *rest = await chat_stream(client, **body)
    assert first["prompt_token_ids"] == prompt
    assert not any("prompt_token_ids" in chunk for chunk in rest)
    for choice in whole["choices"]:
        ids = choice["token_ids"]
        assert len(ids) == len(choice["logprobs"]["content"])
        streamed = [c for chunk in [first, *rest] for c in chunk["choices"] if c["index"] == choice["index"]]
        assert [token for piece in streamed for token in piece.get("token_ids", ())] == ids
        text = llm.tokenizer.decode(ids, skip_special_tokens=True)
        assert text.startswith(choice["message"]["content"].rstrip("\ufffd"))


async def test_an_answer_goes_on_behind_its_prefix(client):
    body = {"max_tokens": 12, "return_token_ids": True, **SAMPLED}
    free = (await chat(client, **body))["choices"][0]
    forked = await chat(client, **body, answer_prefix=free["token_ids"][:4])
    assert forked["choices"][0]["message"] == free["message"]
    assert forked["choices"][0]["token_ids"] == free["token_ids"]
    assert forked["usage"]["completion_tokens"] == 8


async def test_statistics_come_once(client):
    chunks = await chat_stream(client, max_tokens=4)
    *others, last = [choice for chunk in chunks for choice in chunk["choices"]]
    assert last["eft"]["mixture"] == {"one": 1.0}
    assert {"drafted", "accepted", "tokens_per_second", "time_to_first_token"} <= set(last["eft"])
    assert not any("eft" in choice for choice in others)


CONVERSATION = [
    {"role": "developer", "content": "Be brief."},
    {
        "role": "user",
        "name": "ann",
        "content": [{"type": "text", "text": "wash "}, {"type": "text", "text": "it"}],
    },
    {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "audio": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "wash", "arguments": '{"yes": true}'}},
            {"id": "call_2", "type": "function", "function": {"name": "wash", "arguments": '{"yes": tr'}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "clean"}]},
    {"role": "assistant", "content": None, "refusal": "No."},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}]},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
]
AS_LANGCHAIN = [
    SystemMessage("Be brief."),
    HumanMessage([{"type": "text", "text": "wash "}, {"type": "text", "text": "it"}], name="ann"),
    AIMessage(
        "",
        tool_calls=[{"name": "wash", "args": {"yes": True}, "id": "call_1"}],
        invalid_tool_calls=[{"name": "wash", "args": '{"yes": tr', "id": "call_2", "error": "cut"}],
    ),
    ToolMessage([{"type": "text", "text": "clean"}], tool_call_id="call_1"),
    AIMessage("No."),
    AIMessage("Never."),
    HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
]


async def test_all_forms_of_messages_are_read(client, llm):
    body = {"messages": CONVERSATION, "tools": TOOLS, "return_token_ids": True, "max_tokens": 4}
    call = await asyncio.to_thread(llm.prepare_call, AS_LANGCHAIN, tools=TOOLS)
    assert (await chat(client, **body))["prompt_token_ids"] == list(call.requests[0].prompt_ids)
    assert "image/png" in llm.tokenizer.decode(call.requests[0].prompt_ids)


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"mesages": []}, 422, "'messages'"),
        ({"messages": []}, 400, "at least one message"),
        ({"messages": [{"role": "ape", "content": "hi"}]}, 422, "ape"),
        ({"messages": [{"role": "tool", "content": "hi"}]}, 422, "tool_call_id"),
        ({"messages": [{"role": "user", "content": 3}]}, 422, "3"),
        ({"temperature": -1}, 400, "-1"),
        ({"temperature": "hot"}, 422, "hot"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_completion_tokens": 100_000}, 400, "context window"),
        ({"n": 0}, 400, "n must be"),
        ({"top_logprobs": 3}, 400, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "20"),
        ({"tool_choice": "required"}, 400, "required"),
        ({"tools": [{"type": "web_search"}]}, 400, "web_search"),
        ({"tools": [function("a"), function("a")]}, 400, "2 times"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "iron"}}}, 400, "iron"),
        ({"response_format": {"type": "xml"}}, 400, "xml"),
        ({"response_format": {"type": "json_object", "schema": referring(1000)}}, 400, "4004 levels"),
        ({"logit_bias": {"9999": 1}}, 400, "9999"),
        ({"logit_bias": {"the": 1}}, 422, "the"),
        ({"mixture": {"three": 1.0}}, 400, "'three'.*'one'"),
        ({"mixture": {"one": -1.0}}, 400, "0 or more"),
        ({"mixture": {"one": 1e9}}, 400, "one"),
        ({"mixture": {"one": "much"}}, 422, "much"),
        ({"mixture": ["one"]}, 422, "mixture"),
        ({"speculation": 99}, 422, "99"),
        ({"stream_options": {"include_use": True}}, 422, "'include_usage'"),
        ({"modalities": ["audio"]}, 422, "audio"),
        ({"reasoning_effort": "low"}, 400, "cannot ask for reasoning_effort='low'"),
        ({"timeout": 3}, 422, "timeout"),
        ({"chat_template_kwargs": {"chat_template": "{{ messages }}"}}, 422, "the server's"),
        ({"chat_template_kwargs": ["a"]}, 422, "chat_template_kwargs"),
    ],
)
async def test_what_cannot_be_served_is_refused_before_a_stream_begins(client, body, status, named):
    for stream in (False, True):
        error = await refused(client, PATH, status, **{"messages": MESSAGES, **body, "stream": stream})
        assert re.search(named, error["message"]), error["message"]


@pytest.mark.slow
async def test_fields_without_effect_are_accepted(client):
    harmless = {
        "user": "ann", "store": True, "metadata": {"a": "b"}, "service_tier": "auto",
        "safety_identifier": "x", "prompt_cache_key": "k", "modalities": ["text"],
        "prediction": {"type": "content", "content": "hi"},
        "response_format": {"type": "text"}, "tools": [], "tool_choice": "auto", "reasoning_effort": None,
        "stop": None, "seed": None, "n": None, "max_tokens": None, "logit_bias": None, "top_logprobs": None,
    }  # fmt: skip
    short = {"max_completion_tokens": 24}
    answers = [await chat(client, **harmless, **short), await chat(client, **short)]
    assert len({answer["choices"][0]["message"]["content"] for answer in answers}) == 1


async def test_the_newer_name_of_max_tokens_counts(client):
    body = {"max_tokens": 9, "max_completion_tokens": 3, "logit_bias": {"0": -100}}
    assert (await chat(client, **body))["usage"]["completion_tokens"] == 3


async def test_nothing_blocks_the_event_loop(client):
    """Blockbuster raises wherever something reads a file, waits for a lock or sleeps on the loop."""
    await chat(client)
    with blockbuster_ctx():
        await asyncio.gather(*(chat_stream(client, max_tokens=4) for _ in range(5)))
        await asyncio.gather(
            *(chat(client, max_tokens=4, tools=TOOLS, tool_choice="required") for _ in range(3))
        )
        await chat(client, mixture={"one": 0.5, "two": 0.5}, n=2, max_tokens=4)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
async def test_whoever_leaves_frees_the_rows_at_the_next_round(client, llm, stream, n):
    engine = llm.engine
    leaver = Leaver({"model": "base", "messages": MESSAGES, **LONG, "stream": stream, "n": n})
    serving = leaver.call(client.app, PATH)
    await await_until(lambda: engine.stats().running == n)
    if stream:
        await await_until(lambda: len(leaver.sent) > 5)
    before = engine.stats().generated_tokens
    leaver.leave()
    await await_until(lambda: engine.stats().running == 0)
    # A few rounds may pass before the event loop hears that the client has left.
    assert engine.stats().generated_tokens - before < 300
    await asyncio.wait_for(serving, 10)
    assert bool(leaver.sent) == stream or leaver.sent[0]["status"] == 499


@pytest.mark.slow
async def test_a_failure_midway_is_the_last_event_of_a_stream(client, llm):
    with failing_rows(
        lambda states: any(len(state.tokens) > 20 for state in states), RuntimeError("on fire")
    ):
        answer = await client.post(PATH, json={"model": "base", "messages": MESSAGES, **LONG, "stream": True})
    assert answer.status_code == 200
    *_, event, done = answer.text.rstrip("\n").split("\n\n")
    assert done == "data: [DONE]"
    error = json.loads(event.removeprefix("data: "))["error"]
    assert error["type"] == "server_error"
    assert await chat(client)  # the engine goes on


async def test_openais_own_client_reads_everything(client):
    sdk = openai.AsyncOpenAI(
        api_key="none", base_url="http://127.0.0.1/v1", http_client=client, max_retries=0
    )
    answer = await sdk.chat.completions.create(
        model="base", messages=MESSAGES, max_tokens=8, extra_body={"mixture": {"two": 1.0}}
    )
    assert answer.choices[0].eft["mixture"] == {"two": 1.0}
    async with sdk.chat.completions.stream(
        model="base", messages=MESSAGES, tools=TOOLS, tool_choice="required", max_tokens=100
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name in ("wash", "dry")
    with pytest.raises(openai.NotFoundError, match="gpt-4") as raised:
        await sdk.chat.completions.create(model="gpt-4", messages=MESSAGES)
    assert raised.value.code == "model_not_found"


class Washed(BaseModel):
    """Whether it was washed."""

    yes: bool


@pytest.mark.slow
async def test_langchains_openai_client_says_what_the_model_says(client, llm):
    address = {"api_key": "none", "base_url": "http://127.0.0.1/v1", "http_async_client": client}
    remote = ChatOpenAI(model="base:one=1", **address, seed=3, stream_usage=True)
    messages = AS_LANGCHAIN[:4]
    for tool_choice in ("auto", "any"):
        bound = {"tools": TOOLS, "tool_choice": tool_choice, "max_tokens": 100}
        local = await llm.bind_tools(**{**bound, "seed": 3}).ainvoke(messages)
        answer = await remote.bind_tools(**bound).ainvoke(messages)
        parts = [part async for part in remote.bind_tools(**bound).astream(messages)]
        for other in (answer, reduce(add, parts)):
            assert other.content == local.content
            assert [c["args"] for c in other.tool_calls] == [c["args"] for c in local.tool_calls]
            assert other.usage_metadata["output_tokens"] == local.usage_metadata["output_tokens"]
    for method in ("json_schema", "function_calling"):
        structured = {"schema": Washed, "method": method}
        local = await llm.with_structured_output(**structured, seed=3).ainvoke(messages)
        assert await remote.with_structured_output(**structured).ainvoke(messages) == local
