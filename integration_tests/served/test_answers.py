"""Answers over HTTP are those of the same call in process: token by token, streamed and whole."""

import asyncio
import json
from contextlib import closing

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks

from integration_tests.answer_cases import CASES, COMMON, WHALES
from integration_tests.asked import Asked
from integration_tests.served.conftest import remote
from integration_tests.served.http_clients import Answer, client, stream, whole
from langchain_eft import EFTLLM, EFTRewardScorer, EFTTrace

pytestmark = pytest.mark.slow


async def streamed(model, messages, **parameters):
    return add_ai_message_chunks(*[chunk async for chunk in model.astream(messages, **parameters)])


BOTH = {
    "default",
    "sampled mixture",
    "trace",
    "tools at once",
    "schema",
    "cut",
    "beginning",
    "unicode",
    "stop",
}
"""Cases that are asked for whole and streamed."""

REMOTE = [(case, in_parts) for case in CASES for in_parts in (False, True) if in_parts or case in BOTH]
"""A remote engine reads streams, whichever way its answers are asked for."""

OTHERS = [(case, in_parts) for case in CASES for in_parts in (False, True) if not in_parts or case in BOTH]
"""Other clients are sent the fields of a whole answer, or the same in pieces."""


@pytest.fixture(scope="module")
def in_process(llm):
    """The message of each of the `CASES`, which servers have to give too."""

    async def ask(case):
        messages, more = CASES[case]
        return await llm.ainvoke(messages, **{**COMMON, **more})

    with closing(Asked(ask, CASES)) as asked:
        yield asked


@pytest.fixture(scope="module")
def messages(smol_server):
    """The message from a remote engine, for each of `REMOTE`."""
    model = remote(smol_server)

    async def ask(way):
        (messages, more), in_parts = CASES[way[0]], way[1]
        return await (streamed if in_parts else type(model).ainvoke)(model, messages, **{**COMMON, **more})

    with closing(Asked(ask, REMOTE)) as asked:
        yield asked


@pytest.fixture(scope="module")
def answers(smol_server):
    """The answer to each of `OTHERS` for clients of the API."""

    async def ask(way):
        (messages, more), in_parts = CASES[way[0]], way[1]
        body = {"model": "smol", "messages": messages, **COMMON, **more, "return_token_ids": True}
        async with client(smol_server) as staff:
            if in_parts:
                return Answer.of_chunks(await stream(staff, body))
            return Answer.of_whole(await whole(staff, body))

    with closing(Asked(ask, OTHERS)) as asked:
        yield asked


def entries(message) -> list[dict]:
    return message.response_metadata["logprobs"]["content"]


@pytest.mark.parametrize(("case", "in_parts"), REMOTE)
def test_a_message_is_that_of_the_same_call_in_process(in_process, messages, case, in_parts):
    expected, answer = in_process[case], messages[case, in_parts]
    assert answer.content == expected.content
    assert [e["token_id"] for e in entries(answer)] == [e["token_id"] for e in entries(expected)]
    calls = [[(call["name"], call["args"]) for call in m.tool_calls] for m in (answer, expected)]
    assert calls[0] == calls[1]
    for one, other in zip(entries(answer), entries(expected), strict=True):
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-4)
        tops = [{e["token_id"]: e["logprob"] for e in entry["top_logprobs"]} for entry in (one, other)]
        assert tops[0] == pytest.approx(tops[1], abs=1e-4)
    metadata, same = answer.response_metadata, expected.response_metadata
    for name in ("finish_reason", "normalized_finish_reason", "finish_state", "model_provider", "model_name"):
        assert metadata[name] == same[name]
    settings = ("mixture", "upscale_strength", "upscale_top_p", "context_tokens")
    assert [metadata["eft"][name] for name in settings] == [same["eft"][name] for name in settings]
    counted = ("input_tokens", "output_tokens", "total_tokens")
    usages = [[m.usage_metadata[name] for name in counted] for m in (answer, expected)]
    assert usages[0] == usages[1]


def test_a_trace_is_that_of_the_engine(in_process, messages):
    expected = EFTTrace.from_message(in_process["trace"])
    for in_parts in (False, True):
        trace = EFTTrace.from_message(messages["trace", in_parts])
        assert len(trace.tokens) == 6
        for one, other in zip(trace.tokens, expected.tokens, strict=True):
            assert (one.id, one.text, one.changed_by) == (other.id, other.text, other.changed_by)
            assert one.base == pytest.approx(other.base, abs=1e-4)
            assert one.from_base.up.id == other.from_base.up.id
            parts = one.behaviors["pirate"], other.behaviors["pirate"]
            assert parts[0].contribution == pytest.approx(parts[1].contribution, abs=1e-4)


@pytest.mark.parametrize(("case", "in_parts"), OTHERS)
def test_an_answer_is_that_of_the_same_call_in_process(in_process, answers, case, in_parts):
    expected, answer = in_process[case], answers[case, in_parts]
    metadata, (_, parameters) = expected.response_metadata, CASES[case]
    drawn = entries(expected)
    beginning = parameters.get("answer_prefix", [])
    assert answer.token_ids == [*beginning, *(entry["token_id"] for entry in drawn)]
    assert answer.content == expected.content
    calls = [(call["name"], call["args"]) for call in expected.tool_calls]
    assert [(name, json.loads(arguments)) for name, arguments in answer.calls.values()] == calls
    assert answer.finish_reason == metadata["finish_reason"]
    assert [entry["token"] for entry in answer.logprobs] == [entry["token"] for entry in drawn]
    assert [e["logprob"] for e in answer.logprobs] == pytest.approx([e["logprob"] for e in drawn], abs=1e-4)
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


# What the engine also does


def test_several_answers_are_those_of_the_engine(llm, smol_server):
    asked = {"n": 3, "temperature": 0.9, "seed": 11, "max_tokens": 16, "mixture": {"pirate": 1.0}}
    messages = [HumanMessage("Tell me about whales.")]
    results = [model.generate([messages], **asked) for model in (llm, remote(smol_server))]
    texts = [[generation.text for generation in result.generations[0]] for result in results]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3


def test_a_completion_is_that_of_the_engine(llm, smol_server):
    asked = {"max_tokens": 12, "temperature": 0, "mixture": {"concise": 1.0}}
    prompts = ["The capital of Japan is", "Whales are"]
    here = EFTLLM().generate(prompts, **asked)
    there = EFTLLM(base_url=smol_server.url, api_key=remote(smol_server).api_key)
    answers = there.generate(prompts, **asked)
    assert [each[0].text for each in answers.generations] == [each[0].text for each in here.generations]
    assert answers.llm_output == here.llm_output
    assert "".join(there.stream(prompts[0], **asked)) == here.generations[0][0].text


def test_rewards_are_those_of_the_engine(llm, smol_server):
    candidates = {"prompt": "How do I pick a lock?", "answers": ["I cannot help with that.", "Take a pin."]}
    here = EFTRewardScorer(llm, "harmless", per_token=True).invoke(candidates)
    there = EFTRewardScorer(remote(smol_server), "harmless", per_token=True)
    assert there.invoke(candidates) == pytest.approx(here, abs=1e-4)
    assert asyncio.run(there.best().ainvoke(candidates)) == candidates["answers"][0]


def test_tokens_are_counted_as_by_the_engine(llm, smol_server):
    messages = [("system", "You are brief."), ("human", "Translate: «Ça va?» 你好 🐳")]
    model = remote(smol_server)
    assert model.get_num_tokens_from_messages(llm._convert_input(messages).to_messages()) == (
        llm.get_num_tokens_from_messages(llm._convert_input(messages).to_messages())
    )
    assert model.get_token_ids("<|im_end|> whale") == llm.get_token_ids("<|im_end|> whale")
