"""`EFTChatModel(base_url=...)` over vLLM: the answers of an engine in this process, and its errors."""

import asyncio
import threading

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelInvalidRequestError,
    ModelNotFoundError,
)
from langchain_core.messages.ai import add_ai_message_chunks

from integration_tests.answer_cases import CASES
from integration_tests.test_agents import TASKS, TOOLS, results, run
from langchain_eft import EFTLLM, EFTChatModel, EFTRewardScorer
from unit_tests.helpers import without_kernels

COMMON = {"temperature": 0, "max_tokens": 32}
ENFORCED = {
    "tool required", "tool by name", "tools at once", "tool strict", "schema", "any object", "tool or schema",
}  # fmt: skip
"""A grammar decides these: vLLM's log-probabilities of them would be others."""

DRAWN = {"sampled", "sampled mixture", "filters", "penalties"}
"""vLLM draws with random numbers of its own."""

ANY_OBJECT = {"type": "json_object"}
REFUSED = {
    "trace": "trace",
    "beginning": "answer_prefix",
    "speculation off": "off",
    "speculation fixed": "4",
}
GREEDY = [case for case in CASES if case not in DRAWN and case not in REFUSED]


def asked(case):
    messages, more = CASES[case]
    logprobs = {} if case in ENFORCED else {"logprobs": True, "top_logprobs": 5}
    return messages, {**COMMON, **logprobs, **more}


@pytest.fixture(scope="module")
def llm():
    """A model in this process, with the weights that vLLM has: converted to bfloat16."""
    llm = EFTChatModel(temperature=0, max_tokens=64, dtype="float32")
    with without_kernels():
        llm.open()
    yield llm
    llm.engine.close()


@pytest.fixture(scope="module")
def remote(smol_url):
    return EFTChatModel(base_url=smol_url, temperature=0, max_tokens=64)


@pytest.fixture(scope="module")
def in_process(llm):
    async def ask():
        calls = [llm.ainvoke(messages, **parameters) for messages, parameters in map(asked, GREEDY)]
        return dict(zip(GREEDY, await asyncio.gather(*calls), strict=True))

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def served(remote):
    """Each case's message, whole and streamed; all of them asked for at once, each with its own mixture."""

    async def streamed(messages, parameters):
        return add_ai_message_chunks(*[chunk async for chunk in remote.astream(messages, **parameters)])

    async def ask():
        calls = list(map(asked, GREEDY))
        wholes = [remote.ainvoke(messages, **parameters) for messages, parameters in calls]
        answers = await asyncio.gather(*wholes, *(streamed(*call) for call in calls))
        return dict(zip(GREEDY, zip(answers[: len(calls)], answers[len(calls) :], strict=True), strict=True))

    return asyncio.run(ask())


@pytest.mark.parametrize("case", GREEDY)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_greedy_answer_is_that_of_the_engine(in_process, served, case, stream):
    expected, answer = in_process[case], served[case][stream]
    assert answer.content == expected.content
    calls = [[(call["name"], call["args"]) for call in m.tool_calls] for m in (answer, expected)]
    assert calls[0] == calls[1]
    metadata, same = answer.response_metadata, expected.response_metadata
    for name in ("finish_reason", "normalized_finish_reason", "finish_state", "model_provider"):
        assert metadata[name] == same[name]
    for name in ("mixture", "upscale_strength", "upscale_top_p"):
        assert metadata["eft"][name] == same["eft"][name]
    assert metadata["eft"]["drafted"] is None
    assert answer.usage_metadata["input_tokens"] == expected.usage_metadata["input_tokens"]
    # A complete grammar ends our answers; vLLM draws the end token behind it.
    more = answer.usage_metadata["output_tokens"] - expected.usage_metadata["output_tokens"]
    assert more in ({0, 1} if case in ENFORCED else {0})
    if case not in ENFORCED:
        pairs = zip(metadata["logprobs"]["content"], same["logprobs"]["content"], strict=True)
        for one, other in pairs:
            assert one["token_id"] == other["token_id"]
            assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-3)
            tops = [
                {top["token_id"]: top["logprob"] for top in each["top_logprobs"]} for each in (one, other)
            ]
            assert len(tops[0]) == 5
            for token in tops[0].keys() & tops[1].keys():
                assert tops[0][token] == pytest.approx(tops[1][token], abs=1e-3)
            assert len(tops[0].keys() & tops[1].keys()) >= 4  # the fifth may be a near tie


@pytest.mark.parametrize("case", sorted(DRAWN))
def test_a_seed_gives_the_same_answer_again(remote, case):
    messages, parameters = asked(case)
    one, other = (remote.invoke(messages, **parameters) for _ in range(2))
    assert one.content == other.content
    assert one.content != remote.invoke(messages, **{**parameters, "seed": 8}).content


@pytest.mark.parametrize(("case", "said"), REFUSED.items())
def test_what_vllm_cannot_do_is_refused(remote, case, said):
    messages, parameters = asked(case)
    with pytest.raises(ModelInvalidRequestError, match=said):
        remote.invoke(messages, **parameters)


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"mixture": {"nine": 1.0}}, ModelInvalidRequestError, "nine"),
        ({"mixture": {"pirate": -1.0}}, ModelInvalidRequestError, "negative"),
        ({"mixture": {"pirate": 3e5}}, ModelInvalidRequestError, "pirate"),
        ({"upscale_strength": -1.0}, ModelInvalidRequestError, "upscale_strength"),
        ({"max_tokens": 99_999}, ContextOverflowError, "window"),
        ({"model": "other"}, ModelNotFoundError, "'other'"),
        (
            {"logprobs": True, "response_format": {"type": "json_object"}},
            ModelInvalidRequestError,
            "logprobs",
        ),
    ],
)
def test_malformed_calls_are_typed_errors_and_the_server_goes_on(remote, asked, kind, said):
    with pytest.raises(kind, match=said):
        remote.invoke("hi", **asked)
    assert remote.invoke("hi", max_tokens=2).content


def test_an_agent_with_three_tools_works(remote):
    agent = create_agent(remote, TOOLS)

    async def all_tasks():
        return await asyncio.gather(*(run(agent, task) for task in TASKS))

    for (state, _), expected in zip(asyncio.run(all_tasks()), TASKS.values(), strict=True):
        assert results(state["messages"]) == expected
        assert any(result in state["messages"][-1].text for result in expected)


async def test_100_streams_with_100_mixtures(remote):
    def mixture(number):
        return {"pirate": round(number / 100, 2), "concise": round((number * 37 % 100) / 100, 2)}

    async def streamed(number):
        asked = {"mixture": mixture(number), "max_tokens": 8}
        chunks = [chunk async for chunk in remote.astream("Tell me about whales.", **asked)]
        return "".join(chunk.text for chunk in chunks)

    texts = await asyncio.gather(*map(streamed, range(100)))
    assert len(set(texts)) > 5
    for number in range(0, 100, 25):
        alone = await remote.ainvoke("Tell me about whales.", mixture=mixture(number), max_tokens=8)
        assert alone.text == texts[number]


def test_completions_are_those_of_the_engine(llm, smol_url):
    prompts, parameters = ["The capital of Japan is", "Whales are"], {"temperature": 0, "max_tokens": 12}
    here = EFTLLM(dtype="float32").generate(prompts, **parameters)
    there = EFTLLM(base_url=smol_url).generate(prompts, **parameters)
    assert [each[0].text for each in there.generations] == [each[0].text for each in here.generations]


def test_rewards_are_refused(remote):
    scorer = EFTRewardScorer(remote, "harmless")
    with pytest.raises(ModelInvalidRequestError, match="vLLM cannot score"):
        scorer.invoke({"prompt": "hi", "answers": ["a"]})


def test_callers_that_leave_free_the_row(remote, smol_url):
    import httpx

    def running():
        lines = httpx.get(f"{smol_url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running{"))

    def wait_until(condition):
        for _ in range(600):
            if condition():
                return
            threading.Event().wait(0.05)
        raise AssertionError

    wait_until(lambda: running() == 0)
    stream = remote.stream("Tell me about whales.", max_tokens=1500, logit_bias={2: -100})
    next(stream)
    wait_until(lambda: running() == 1)
    stream.close()
    wait_until(lambda: running() == 0)
    # A stop string is found here, and the connection closed.
    text = remote.invoke("Tell me about whales.", max_tokens=1500, logit_bias={2: -100}, stop=[" the"]).text
    assert " the" not in text
    wait_until(lambda: running() == 0)
