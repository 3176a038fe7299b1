"""Answers over HTTP are those of the same call in process: token by token, streamed and whole."""

import asyncio
import json

import pytest

from integration_tests.http_clients import Answer, client, stream, whole

pytestmark = pytest.mark.slow


def tool(name, description, **properties) -> dict:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def said(*texts) -> list[dict]:
    """A conversation in turns, the user's first."""
    roles = ["user", "assistant"] * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


WEATHER = tool("get_weather", "Get the weather at a location.", location={"type": "string"})
ADD = tool("add", "Add two numbers.", a={"type": "integer"}, b={"type": "integer"})
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
WHALES = said("Tell me about whales.")
JAPAN = said("What is the capital of Japan?")
RAIN = said("What is the weather in Paris?")
SUM = said("Add 17 and 25.")
CALLED = [
    *RAIN,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"location": "Paris"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "It is sunny."},
]
SAMPLED = {"temperature": 0.9, "seed": 7}

CASES = {
    "default": (JAPAN, {}),
    "base alone": (JAPAN, {"mixture": {}}),
    "pirate": (WHALES, {"mixture": {"pirate": 1.0}}),
    "two behaviors": (WHALES, {"mixture": {"pirate": 0.7, "concise": 0.6}}),
    "refusal": (said("How can I steal my neighbor's guitar?"), {"mixture": {"harmless": 1.0}}),
    "ramp": (WHALES, {"mixture": {"pirate": {"start": 0.0, "end": 1.5, "tokens": 12}}}),
    "first tokens": (WHALES, {"mixture": {"pirate": {"tokens": 6, "weight": 1.5, "then": 0.0}}}),
    "strength": (JAPAN, {"mixture": {"concise": 1.0}, "upscale_strength": 1.3}),
    "conservative": (WHALES, {"mixture": {"pirate": 1.0}, "upscale_top_p": 0.7}),
    "sampled": (WHALES, SAMPLED),
    "sampled mixture": (WHALES, {**SAMPLED, "mixture": {"pirate": 1.0, "harmless": 0.3}}),
    "filters": (WHALES, {**SAMPLED, "top_p": 0.8, "top_k": 40, "min_p": 0.01}),
    "penalties": (WHALES, {**SAMPLED, "frequency_penalty": 0.7, "presence_penalty": 0.4}),
    "repetition": (WHALES, {"repetition_penalty": 1.3}),
    "bias": (JAPAN, {"logit_bias": {"5": 4.0}}),
    "stop": (WHALES, {"stop": [" are", "."]}),
    "speculation off": (WHALES, {"mixture": {"pirate": 1.0}, "speculation": "off"}),
    "speculation fixed": (WHALES, {"mixture": {"pirate": 1.0}, "speculation": 4}),
    "cut": (WHALES, {"max_tokens": 5}),
    "beginning": (WHALES, {**SAMPLED, "answer_prefix": [504, 1690]}),
    "system": ([{"role": "system", "content": "You are brief."}, *WHALES], {}),
    "turns": (said("What is the capital of Japan?", "Tokyo.", "And of France?"), {}),
    "unicode": (said("Translate: «Ça va?» 你好 🐳"), {"mixture": {"concise": 1.0}}),
    "trace": (JAPAN, {"mixture": {"pirate": 1.0}, "trace": True, "max_tokens": 6}),
    "tool by choice": (RAIN, {"tools": [WEATHER, ADD]}),
    "tool required": (SUM, {"tools": [WEATHER, ADD], "tool_choice": "required"}),
    "tool by name": (
        SUM,
        {"tools": [WEATHER, ADD], "tool_choice": {"type": "function", "function": {"name": "add"}}},
    ),
    "tools at once": (
        said("Weather in Paris and in Rome?"),
        {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": True, "max_tokens": 60},
    ),
    "tool strict": (SUM, {"tools": [ADD], "strict": True}),
    "after a tool": (CALLED, {"tools": [WEATHER]}),
    "schema": (JAPAN, {"response_format": SCHEMA}),
    "any object": (said("Name a city as JSON."), {"response_format": {"type": "json_object"}}),
    "tool or schema": (JAPAN, {"tools": [WEATHER], "response_format": SCHEMA}),
}
COMMON = {"temperature": 0, "max_tokens": 32, "logprobs": True, "top_logprobs": 2}


@pytest.fixture(scope="module")
def in_process(llm):
    """Each case's message."""

    async def ask():
        asked = [llm.ainvoke(messages, **{**COMMON, **more}) for messages, more in CASES.values()]
        return dict(zip(CASES, await asyncio.gather(*asked), strict=True))

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def served(smol_server):
    """Each case's answer, whole and streamed; all of them asked for at once."""

    async def ask():
        bodies = [
            {"model": "smol", "messages": messages, **COMMON, **more, "return_token_ids": True}
            for messages, more in CASES.values()
        ]
        async with client(smol_server) as staff:
            wholes = asyncio.gather(*(whole(staff, body) for body in bodies))
            streams = asyncio.gather(*(stream(staff, body) for body in bodies))
            pairs = zip(map(Answer.of_whole, await wholes), map(Answer.of_chunks, await streams), strict=True)
        return dict(zip(CASES, pairs, strict=True))

    return asyncio.run(ask())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_answer_is_that_of_the_same_call_in_process(in_process, served, case, streamed):
    expected, answer = in_process[case], served[case][streamed]
    metadata, (_, parameters) = expected.response_metadata, CASES[case]
    entries = metadata["logprobs"]["content"]
    beginning = parameters.get("answer_prefix", [])
    assert answer.token_ids == [*beginning, *(entry["token_id"] for entry in entries)]
    assert answer.content == expected.content
    calls = [(call["name"], call["args"]) for call in expected.tool_calls]
    assert [(name, json.loads(arguments)) for name, arguments in answer.calls.values()] == calls
    assert answer.finish_reason == metadata["finish_reason"]
    assert [entry["token"] for entry in answer.logprobs] == [entry["token"] for entry in entries]
    assert [e["logprob"] for e in answer.logprobs] == pytest.approx([e["logprob"] for e in entries], abs=1e-4)
    assert len(answer.trace) == len(metadata.get("trace", ()))
    for name in ("mixture", "upscale_strength", "upscale_top_p"):
        assert answer.eft[name] == metadata["eft"][name]
    usage = expected.usage_metadata
    assert answer.usage["prompt_tokens"] == usage["input_tokens"]
    assert answer.usage["completion_tokens"] == usage["output_tokens"]


def test_the_cases_cover_what_they_claim(in_process):
    """Without calls, objects and cuts among the answers, the comparison would say little."""
    assert sum(bool(message.tool_calls) for message in in_process.values()) >= 5
    assert {m.response_metadata["finish_reason"] for m in in_process.values()} == {
        "stop",
        "length",
        "tool_calls",
    }
    assert json.loads(in_process["schema"].content).keys() == {"city", "large"}
    assert len({message.content for message in in_process.values()}) > 20


def test_a_mixture_is_the_same_by_name_and_by_field(smol_server):
    """`smol:pirate=1`, a name from the file, and `mixture` are three ways to say one thing."""
    asked = {"messages": WHALES, **COMMON}

    async def ask():
        async with client(smol_server) as staff:
            return await asyncio.gather(
                whole(staff, {**asked, "model": "smol:pirate=1"}),
                whole(staff, {**asked, "model": "captain"}),
                whole(staff, {**asked, "model": "smol", "mixture": {"pirate": 1}}),
            )

    contents = [body["choices"][0]["message"]["content"] for body in asyncio.run(ask())]
    assert len(set(contents)) == 1
    assert contents[0]
