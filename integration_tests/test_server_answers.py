"""Answers over HTTP are those of the same call in process: token by token, streamed and whole."""

import asyncio
import json

import pytest

from integration_tests.answer_cases import CASES, COMMON, WHALES
from integration_tests.http_clients import Answer, client, stream, whole

pytestmark = pytest.mark.slow


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
