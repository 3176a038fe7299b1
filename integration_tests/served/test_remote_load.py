"""Many callers of one server, servers that die, and callers that leave: nothing is mixed up, lost or held."""

import asyncio
import signal

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import (
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
)
from openai import AsyncOpenAI, RateLimitError

from integration_tests.serve_process import PATIENCE, body, server
from integration_tests.served.conftest import remote
from integration_tests.served.http_clients import client
from integration_tests.served.test_load import until
from integration_tests.test_agents import TASKS, TOOLS, results, run
from langchain_eft import EFTChatModel
from unit_tests.tiny import build

pytestmark = pytest.mark.slow

LONG = {"max_tokens": 400, "logit_bias": {2: -1000}}
"""An answer that goes on until the caller has left."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("family")).folder


def mixture(number: int) -> dict[str, float]:
    return {"pirate": round(number / 100, 2), "concise": round((number * 37 % 100) / 100, 2)}


async def test_100_streams_with_100_mixtures_are_those_of_single_calls(smol_server):
    model = remote(smol_server, max_tokens=8)

    async def streamed(number):
        chunks = [chunk async for chunk in model.astream("Tell me about whales.", mixture=mixture(number))]
        return "".join(chunk.text for chunk in chunks), chunks[-1].response_metadata["eft"]["mixture"]

    answers = await asyncio.gather(*map(streamed, range(100)))
    assert [asked for _, asked in answers] == [mixture(number) for number in range(100)]
    assert len({text for text, _ in answers}) > 5
    for number in range(0, 100, 9):
        alone = await model.ainvoke("Tell me about whales.", mixture=mixture(number))
        assert alone.text == answers[number][0]
    async with client(smol_server) as staff:
        await until(staff, busy=False)


async def test_callers_that_leave_free_their_rows(smol_server):
    model = remote(smol_server, **LONG)
    async with client(smol_server) as staff:
        await until(staff, busy=False)
        whole = [asyncio.create_task(model.ainvoke("Tell me about whales.")) for _ in range(8)]
        streams = [model.astream("Tell me about whales.") for _ in range(8)]
        await asyncio.gather(*(anext(stream) for stream in streams))
        await until(staff, busy=True)
        for task in whole:
            task.cancel()
        await asyncio.gather(*whole, return_exceptions=True)
        for stream in streams:
            await stream.aclose()
        await until(staff, busy=False)


def test_an_agent_with_three_tools_works_on_a_server(smol_server):
    agent = create_agent(remote(smol_server), TOOLS)

    async def all_tasks():
        return await asyncio.gather(*(run(agent, task) for task in TASKS))

    for (state, chunks), expected in zip(asyncio.run(all_tasks()), TASKS.values(), strict=True):
        messages = state["messages"]
        assert results(messages) == expected
        assert any(result in messages[-1].text for result in expected)
        assert chunks


def test_a_batch_is_answered_in_order(smol_server):
    model = remote(smol_server, max_tokens=24)
    countries = {"Japan": "Tokyo", "France": "Paris", "Kenya": "Nairobi"}
    answers = model.batch([f"What is the capital of {country}?" for country in countries])
    assert all(city in answer.text for city, answer in zip(countries.values(), answers, strict=True))


def test_what_a_key_may_not_do_is_refused_with_a_type_of_its_own(smol_server):
    guest = remote(smol_server, "guest")
    assert guest.invoke("hi", mixture={"harmless": 0.5}, max_tokens=4)
    with pytest.raises(ModelPermissionDeniedError, match=r"'pirate'.* 0 to 0\.5"):
        guest.invoke("hi", mixture={"pirate": 1.0, "harmless": 0.5})
    with pytest.raises(ModelNotFoundError, match="'other'"):
        remote(smol_server).invoke("hi", model="other")
    with pytest.raises(ModelAuthenticationError, match="api_key"):
        EFTChatModel(base_url=smol_server.url, api_key="unknown-secret").invoke("hi")
    with pytest.raises(ModelInvalidRequestError, match="nine"):
        remote(smol_server).invoke("hi", mixture={"nine": 1.0})
    assert remote(smol_server).invoke("hi", max_tokens=4)


@pytest.fixture(scope="module")
def narrow(folder):
    """A server that decodes one answer and lets one wait."""
    with server("--max-batch-size", "1", "--max-queued-requests", "1", folder=folder) as running:
        yield running


async def test_a_full_queue_is_waited_for_or_a_rate_limit(narrow):
    async def crowd(number, retries):
        asked = {"max_tokens": 100, "logit_bias": {0: -1000}, "max_retries": retries}
        model = EFTChatModel(base_url=narrow.url, **asked)
        return await asyncio.gather(*(model.ainvoke("hi") for _ in range(number)), return_exceptions=True)

    refused = [answer for answer in await crowd(6, retries=0) if isinstance(answer, Exception)]
    assert refused
    assert all(isinstance(error, ModelRateLimitError) for error in refused)
    patient = await crowd(3, retries=8)
    assert not [answer for answer in patient if isinstance(answer, Exception)]


async def test_a_full_queue_tells_openais_client_when_to_come_back(narrow):
    asked = body(tokens=100)
    async with AsyncOpenAI(base_url=f"{narrow.url}/v1", api_key="none", timeout=PATIENCE) as client:
        once = client.with_options(max_retries=0)
        calls = [once.chat.completions.create(**asked) for _ in range(8)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, RateLimitError)]
        assert 1 <= len(refused) <= 7
        assert all(int(error.response.headers["retry-after"]) >= 1 for error in refused)
        assert all(answer.choices for answer in answers if answer not in refused)
        # A client that tries again, as they do by default, gets its answer.
        patient, asked["max_tokens"] = client.with_options(max_retries=20), 2
        calls = [patient.chat.completions.create(**asked) for _ in range(3)]
        assert all(answer.choices for answer in await asyncio.gather(*calls))


def test_a_server_that_is_killed_midway_is_an_error_and_a_later_call_works(folder):
    with server(folder=folder) as killed:
        model = EFTChatModel(base_url=killed.url, max_tokens=900, logit_bias={0: -1000}, max_retries=0)
        stream = model.stream("hi")
        next(stream)
        killed.process.kill()
        assert killed.ended() == -signal.SIGKILL
        with pytest.raises(ModelConnectionError, match=r"breaks after \d+ tokens"):
            list(stream)
        with pytest.raises(ModelConnectionError, match="fails"):
            model.invoke("hi")
    port = killed.address[1]
    with server("--port", port, folder=folder):
        assert model.invoke("hi", max_tokens=5).usage_metadata["output_tokens"] == 5
        assert EFTChatModel(base_url=killed.url, max_tokens=5).invoke("hi").usage_metadata


def test_a_server_that_returns_with_other_models_is_asked_anew(folder, tmp_path):
    with server(folder=folder) as first:
        model = EFTChatModel(base_url=first.url, max_tokens=5)
        model.invoke("hi")
    template = tmp_path / "other.jinja"
    template.write_text("{% for m in messages %}{{ 'Q: ' + m['content'] }}{% endfor %} A:")
    with server("--port", first.address[1], "--chat-template", template, folder=folder):
        with pytest.raises(Exception, match="other models") as caught:
            model.invoke("hi")
        assert caught.value.is_retryable
        assert model.invoke("hi").usage_metadata["input_tokens"] == len("Q: hi A:")


def test_a_call_waits_for_a_server_that_loads(folder):
    with server(folder=folder, ready=False) as loading:
        model = EFTChatModel(base_url=loading.url, max_tokens=5)
        assert model.invoke("hi").usage_metadata["output_tokens"]
