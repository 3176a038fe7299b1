"""A remote engine over a real server with tiny models, and over scripted ones that misbehave."""

import asyncio
import json
import os
import threading
import time

import httpx
import pytest
from blockbuster import blockbuster_ctx
from langchain_core import exceptions

from langchain_eft import EFTLLM, EFTChatModel, EFTRewardScorer
from langchain_eft.engine.errors import (
    CheckpointNotFoundError,
    ContextWindowError,
    DecodingError,
    EngineClosedError,
    EngineUnreachableError,
    RecipeError,
    RequestError,
    RequestTimeoutError,
)
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import GivenAnswers
from langchain_eft.remote import engine as engine_module
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.engine import RemoteEngine
from langchain_eft.remote.registry import find_remote, open_remote
from unit_tests.helpers import PATIENCE, await_until, request, wait_until
from unit_tests.remote.scripted_server import Scripted, events, refusal

LONG = {"max_tokens": 800, "logit_bias": {0: -1000}}


@pytest.fixture
def remote(served):
    return EFTChatModel(base_url=served, temperature=0, max_tokens=12)


@pytest.fixture
def engine(served):
    return open_remote(Endpoint(url=served))


@pytest.fixture
def copied(served, scripted):
    """A scripted server that says of itself what the real one says."""
    for path in ("/v1/models", "/v1/recipe"):
        answer = httpx.get(f"{served}{path}", params={"model": "base"})
        headers = {"ETag": answer.headers["etag"]} if "etag" in answer.headers else {}
        scripted.paths[path] = Scripted(body=answer.content, headers=headers)
    open_remote(Endpoint(url=served))  # keeps the tokenizer
    return scripted


def chunk(token_ids, reason=None, **more):
    choice = {"index": 0, "text": "x", "token_ids": token_ids, "finish_reason": reason, **more}
    return {"choices": [choice], "usage": None}


def stats(served):
    return served.app.state.serving.stats()


# A real server


def test_it_knows_what_the_engine_knows(served, engine, tool_settings):
    local = EFTChatModel(**tool_settings)
    assert engine.name == "base"
    assert set(engine.recipe.behaviors) == set(local.recipe.behaviors)
    assert engine.mixture == local.active_mixture
    assert engine.window == local.engine.window
    for lengths in ((5,), (5, 9), (900, 3, 80)):
        assert engine.max_output_tokens(*lengths) == local.engine.max_output_tokens(*lengths)
    assert engine.tokenizer.chat_template == local.tokenizer.chat_template


def test_answers_are_those_of_an_engine_in_this_process(remote, tool_settings):
    local = EFTChatModel(**{**tool_settings, "max_tokens": 12})
    for asked in ({}, {"mixture": {"two": 1.0}}, {"temperature": 1.0, "seed": 4}, {"stop": ["a", "e"]}):
        one, other = remote.invoke("hi", **asked), local.invoke("hi", **asked)
        assert one.content == other.content
        assert one.usage_metadata["output_tokens"] == other.usage_metadata["output_tokens"]
        assert one.response_metadata["finish_reason"] == other.response_metadata["finish_reason"]


def test_a_mixture_of_the_server_is_a_model(remote):
    by_name = remote.invoke("hi", model="base:two=1")
    assert by_name.response_metadata["model_name"] == "base:two=1"
    assert by_name.response_metadata["eft"]["mixture"] == {"two": 1.0}
    assert by_name.content == remote.invoke("hi", mixture={"two": 1.0}).content
    assert (
        remote.invoke("hi", model="base:two=1", mixture={}).content == remote.invoke("hi", mixture={}).content
    )


async def test_event_loops_come_and_go(remote):
    async def ask():
        return (await remote.ainvoke("hi")).content

    expected = await ask()
    texts = await asyncio.gather(*(asyncio.to_thread(asyncio.run, ask()) for _ in range(3)))
    assert texts == [expected] * 3
    assert remote.invoke("hi").content == expected


@pytest.mark.parametrize("call", ["mixture", "behavior", "window", "model", "grammar"])
def test_refusals_have_the_types_of_an_engine_in_this_process(remote, call):
    kind, said, asked = {
        "mixture": (exceptions.ModelInvalidRequestError, "negative", {"mixture": {"one": -1.0}}),
        "behavior": (exceptions.ModelInvalidRequestError, "nine", {"mixture": {"nine": 1.0}}),
        "window": (exceptions.ContextOverflowError, "window", {"max_tokens": 100_000}),
        "model": (exceptions.ModelNotFoundError, "does not exist", {"model": "other"}),
        "grammar": (exceptions.ModelInvalidRequestError, "temperature", {"temperature": -1}),
    }[call]
    with pytest.raises(kind, match=said):
        remote.invoke("hi", **asked)
    assert remote.invoke("hi").content


def test_a_stream_that_is_closed_frees_its_place(served, remote):
    stream = remote.stream("hi", **LONG)
    next(stream)
    assert stats(served).running == 1
    stream.close()
    wait_until(lambda: stats(served).running == 0)


async def test_a_call_that_is_cancelled_frees_its_place(served, remote):
    task = asyncio.create_task(remote.ainvoke("hi", **LONG))
    await await_until(lambda: stats(served).running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await await_until(lambda: stats(served).running == 0)


def test_time_that_is_up_frees_the_place_and_is_a_timeout(served, remote):
    with pytest.raises(exceptions.ModelTimeoutError, match="timeout"):
        remote.invoke("hi", timeout=0.05, **LONG)
    wait_until(lambda: stats(served).running == 0)


@pytest.mark.slow
async def test_no_call_blocks_an_event_loop(served, remote):
    """Neither the caller's nor that on which requests run, nor the server's."""
    scorer = EFTRewardScorer(remote, "one")
    with blockbuster_ctx() as guard:
        assert guard is not None
        with pytest.raises(Exception, match="Blocking call"):
            time.sleep(0.01)  # the guard is on  # noqa: ASYNC251
        rebuilt = EFTChatModel(base_url=served, api_key="another-key", max_tokens=4)
        assert await rebuilt.ainvoke("hi")  # asks the server what it serves
        await asyncio.gather(*(remote.ainvoke("hi", max_tokens=8) for _ in range(8)))
        assert [chunk async for chunk in remote.astream("hi", n=1)]
        assert await EFTLLM(base_url=served, max_tokens=4).ainvoke("hi") is not None
        assert len(await scorer.ainvoke({"prompt": "x", "answers": ["y", "z"]})) == 2


def test_a_closed_engine_fails_what_runs_and_a_later_call_opens_another(served, remote):
    engine, failures = remote.engine, []

    def read():
        try:
            list(remote.stream("hi", **LONG))
        except exceptions.ModelAPIError as error:
            failures.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    wait_until(lambda: stats(served).running == 1)
    engine.close()
    reading.join(PATIENCE)
    assert len(failures) == 1
    wait_until(lambda: stats(served).running == 0)
    with pytest.raises(EngineClosedError):
        list(engine.stream(request((1, 2))))
    assert remote.invoke("hi").content
    assert remote.engine is not engine


def test_models_of_one_endpoint_share_an_engine(served, engine):
    assert EFTChatModel(base_url=f"{served}/v1/", max_tokens=3).engine is engine
    assert EFTChatModel(base_url=served, api_key="another-key").engine is not engine
    assert find_remote(Endpoint(url="http://127.0.0.1:9")) is None


def test_rewards_and_their_refusals(served, engine, tool_settings):
    local = EFTChatModel(**tool_settings).engine
    answers = [(5, 6, 7), (8,)]
    assert engine.score("one", (1, 2), answers) == pytest.approx(
        local.score("one", (1, 2), answers), abs=1e-4
    )
    with pytest.raises(RecipeError, match="nine"):
        engine.score("nine", (1, 2), answers)
    with pytest.raises(RequestError, match="vocabulary"):
        engine.score("one", (1, 2), [(10**6,)])


def test_log_probabilities_of_answers_and_their_refusals(served, engine, tool_settings):
    local, answers = EFTChatModel(**tool_settings).engine, ((5, 6, 7), (8,))
    given = [GivenAnswers(request(prompt, {"two": 0.5}), answers) for prompt in ((1, 2), (1, 2, 3))]
    here, there = local.answer_logprobs(given), engine.answer_logprobs(given)
    for own, other in zip(there.logprobs, here.logprobs, strict=True):
        for tokens, of_local in zip(own, other, strict=True):
            assert tokens == pytest.approx(of_local, abs=1e-4)
    assert there.cached_tokens == 2
    assert asyncio.run(engine.aanswer_logprobs(given)).logprobs[1][1] == pytest.approx(there.logprobs[1][1])
    with pytest.raises(RequestError, match="vocabulary"):
        engine.answer_logprobs([GivenAnswers(request((1, 2)), ((10**6,),))])
    with pytest.raises(RequestError, match="2 mixtures"):
        engine.answer_logprobs([*given, GivenAnswers(request((1, 2)), answers)])
    with pytest.raises(RequestError, match="at least one"):
        engine.answer_logprobs([])


def test_decisions_are_those_of_an_engine_in_this_process(served, tool_settings):
    decisions = pytest.importorskip(
        "langchain_core.decisions", reason="langchain-core 1.8 has decision models"
    )
    from langchain_eft import EFTDecisionModel

    fields = {name: tool_settings[name] for name in ("model", "behaviors", "engine_options", "chat_template")}
    here, there = EFTDecisionModel(**fields, mixture={"one": 1.0}), EFTDecisionModel(base_url=served)
    questions = {
        "late": decisions.Noul(instructions="Is it late?"),
        "team": decisions.Choice(
            instructions="Who?", criteria={"billing": None, "bill": None, "sales": None}
        ),
    }
    given = {"state": "The bus left.", "questions": questions}
    for mixture in ({"one": 1.0}, {"two": 0.5}, {}):
        local, remote = here.invoke(given, mixture=mixture), there.invoke(given, mixture=mixture)
        assert remote.nouls["late"].noul == pytest.approx(local.nouls["late"].noul, abs=1e-4)
        probabilities = local.choices["team"].probabilities
        assert remote.choices["team"].probabilities == pytest.approx(probabilities, abs=1e-4)
    assert asyncio.run(there.ainvoke(given)).model == "base"
    with pytest.raises(exceptions.ModelInvalidRequestError, match="nine"):
        there.invoke(given, mixture={"nine": 1.0})


# Servers that misbehave


def test_what_breaks_midway_says_how_far_it_came_and_a_later_call_works(copied):
    copied.script = [
        events(chunk([70, 71, 72]), done=False, cut=True),
        events(chunk([70]), chunk([], "stop")),
    ]
    model = EFTChatModel(base_url=copied.url)
    received = []
    with pytest.raises(exceptions.ModelConnectionError, match="after 3 tokens") as caught:
        received.extend(part.content for part in model.stream("hi"))
    assert caught.value.is_retryable
    assert "".join(received) == model.tokenizer.decode([70, 71, 72])
    assert len(copied.bodies) == 1  # never sent again
    assert model.invoke("hi").response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("done", [True, False])
def test_a_stream_that_ends_early_is_an_error(copied, done):
    copied.script = [events(chunk([70, 71]), done=done)]
    with pytest.raises(exceptions.ModelConnectionError, match="2 tokens"):
        EFTChatModel(base_url=copied.url).invoke("hi")


def test_an_error_event_ends_the_answer(copied):
    error = {"error": {"message": "the device burns", "code": "decoding_failed"}}
    copied.script = [events(chunk([70]), error)]
    with pytest.raises(exceptions.ModelAPIError, match="the device burns"):
        EFTChatModel(base_url=copied.url).invoke("hi")


USAGE = {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 3}}}
FIGURES = {"drafted": 4, "accepted": 2, "verify_passes": 2, "context_tokens": {}}
LOGPROBS = {"token_logprobs": [-1.0], "top_token_ids": [[[70, -1.0]]]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "event",
    [
        "text",
        ["list"],
        {"other": 1},
        {"choices": 5},
        {"choices": [chunk([70]), chunk([71])]},
        chunk(["a"]),
        chunk([True]),
        chunk([-1]),
        chunk([10**6]),
        chunk([10**12]),
        chunk([2**70]),
        chunk([70], 5),
        chunk([70], ["stop"]),
        chunk([70], "tired"),
        chunk([70], "stop", eft={**FIGURES, "accepted": None}),
        chunk([70], "stop", eft={**FIGURES, "accepted": 10**400}),
        chunk([70], "stop", eft={**FIGURES, "context_tokens": {"one": "many"}}),
        chunk([70], logprobs={"token_logprobs": [1]}),
        chunk([70], logprobs={**LOGPROBS, "token_logprobs": [-1.0, -1.0]}),
        chunk([70], logprobs={**LOGPROBS, "top_token_ids": [[[-70, -1.0]]]}),
        chunk([70], trace=[{"id": 70}]),
        {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": "many"}}},
        {"error": "text"},
    ],
)
def test_nonsense_is_an_error_that_names_the_address(copied, event):
    copied.script = [events(event, chunk([70], "stop"))]
    with pytest.raises(exceptions.ModelAPIError, match=copied.url) as caught:
        EFTChatModel(base_url=copied.url).invoke("hi")
    assert not caught.value.is_retryable
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "body", [b"data: {no json}\n\n", b"data: " + b"[" * 10**5 + b"\n\n", b"data: \xff\n\n"]
)
def test_what_is_no_json_is_an_error_too(copied, body):
    copied.script = [Scripted(body=body)]
    with pytest.raises(exceptions.ModelAPIError, match=copied.url):
        EFTChatModel(base_url=copied.url).invoke("hi")


@pytest.mark.parametrize("asked", [{"logprobs": True}, {"trace": True}])
def test_what_was_asked_for_is_there_for_every_token(copied, asked):
    copied.script = [events(chunk([70], "stop"))]
    with pytest.raises(exceptions.ModelAPIError, match="1 tokens"):
        EFTChatModel(base_url=copied.url).invoke("hi", **asked)


# Answers that have ended, of servers that have not


PING = b": ping\n\n"
TOKEN = b"data: " + json.dumps(chunk([70])).encode() + b"\n\n"
END = chunk([], "stop", eft=FIGURES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "done", "endless"),
    [
        ([chunk([70]), END, USAGE], True, PING),
        ([chunk([70]), END, USAGE], False, PING),
        ([chunk([70]), END], False, TOKEN),
        ([chunk([70]), END], False, b"data: " + json.dumps(USAGE).encode() + b"\n\n"),
        ([], False, TOKEN),
    ],
    ids=["pings behind the end", "pings and no end", "tokens", "usage", "tokens and no end"],
)
def test_an_answer_ends_though_its_server_goes_on(copied, monkeypatch, said, done, endless):
    monkeypatch.setattr(engine_module, "_REST_SECONDS", 0.2)
    copied.script = [events(*said, done=done, endless=endless, pause=0.001)]
    answer = EFTChatModel(base_url=copied.url, max_tokens=9).invoke("hi")
    assert answer.usage_metadata["output_tokens"] == (1 if said else 9)
    assert copied.left.wait(PATIENCE)
    if said:
        assert answer.response_metadata["eft"]["accepted"] == 2
    if USAGE in said:
        assert answer.usage_metadata["input_token_details"] == {"cache_read": 3}


def test_an_end_that_is_none_is_an_error_though_the_server_goes_on(copied):
    copied.script = [events(chunk([70]), endless=PING, pause=0.01)]
    with pytest.raises(exceptions.ModelConnectionError, match="1 tokens"):
        EFTChatModel(base_url=copied.url).invoke("hi")


def test_a_connection_that_breaks_behind_the_answer_does_it_no_harm(copied):
    copied.script = [events(chunk([70]), END, done=False, cut=True)]
    assert EFTChatModel(base_url=copied.url).invoke("hi").usage_metadata["output_tokens"] == 1


def test_a_stream_without_tokens_and_without_end_is_an_error(copied, monkeypatch):
    monkeypatch.setattr(engine_module, "_LINE_BYTES", 10**4)
    copied.script = [Scripted(endless=PING * 1000)]
    with pytest.raises(exceptions.ModelAPIError, match="bytes"):
        EFTChatModel(base_url=copied.url, max_tokens=1).invoke("hi")
    assert copied.left.wait(PATIENCE)


def test_a_window_that_is_smaller_than_the_server_said_is_a_context_overflow(copied):
    copied.script = [
        refusal(400, "The prompt has 12 tokens (context_length_exceeded)", "context_length_exceeded")
    ]
    with pytest.raises(exceptions.ContextOverflowError, match="12 tokens"):
        EFTChatModel(base_url=copied.url).invoke("hi")


def test_a_full_queue_is_a_rate_limit(copied):
    copied.script = [refusal(429, "The queue is full", "queue_full", Retry_After="0")] * 2
    with pytest.raises(exceptions.ModelRateLimitError, match="queue is full"):
        EFTChatModel(base_url=copied.url, max_retries=1).invoke("hi")
    assert len(copied.bodies) == 2


def test_a_server_with_other_models_is_asked_anew(copied):
    copied.script = [
        refusal(412, "other models now", "recipe_changed"),
        events(chunk([70]), chunk([], "stop")),
    ]
    model = EFTChatModel(base_url=copied.url)
    with pytest.raises(exceptions.ModelAPIError, match="other models") as caught:
        model.invoke("hi")
    assert caught.value.is_retryable
    asked = [path for _, path, _, _ in copied.asked]
    assert model.invoke("hi").content
    assert [path for _, path, _, _ in copied.asked][len(asked) :][0] == "/v1/models"


def test_rewards_of_other_models_are_not_taken(copied):
    copied.script = [refusal(412, "other models now", "recipe_changed")]
    engine = RemoteEngine(Endpoint(url=copied.url))
    with pytest.raises(EngineClosedError, match="other models"):
        engine.score("one", (1, 2), [(3,)])
    assert engine.closed
    assert copied.asked[-1][2]["If-Match"] == copied.paths["/v1/recipe"].headers["ETag"]


def test_rewards_that_are_none_are_an_error(copied):
    copied.script = [Scripted(body={"scores": [1]})]
    with pytest.raises(DecodingError, match="base_url"):
        RemoteEngine(Endpoint(url=copied.url)).score("one", (1, 2), [(3,)])


def test_log_probabilities_that_are_none_are_an_error(copied):
    copied.script = [Scripted(body={"scores": [1]})]
    with pytest.raises(DecodingError, match="base_url"):
        RemoteEngine(Endpoint(url=copied.url)).answer_logprobs([GivenAnswers(request((1, 2)), ((3,),))])


async def test_whoever_stops_waiting_for_log_probabilities_closes_the_connection(copied):
    copied.script = [Scripted(body={"logprobs": []}, held=threading.Event())]
    engine = RemoteEngine(Endpoint(url=copied.url))
    waiting = asyncio.create_task(engine.aanswer_logprobs([GivenAnswers(request((1, 2)), ((3,),))]))
    await await_until(lambda: copied.asked[-1][1].endswith("/logprobs"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(copied.left.wait, 10)


def test_leaving_closes_the_connection(copied):
    held = threading.Event()
    copied.script = [events(chunk([70]), done=False, held=held)]
    stream = EFTChatModel(base_url=copied.url).stream("hi")
    next(stream)
    stream.close()
    assert copied.left.wait(PATIENCE)
    held.set()


def test_a_finished_answer_leaves_the_connection_open_for_the_next(copied):
    copied.script = [events(chunk([70]), chunk([], "stop")) for _ in range(4)]
    model = EFTChatModel(base_url=copied.url)
    for _ in range(4):
        model.invoke("hi")
    assert copied.connections == 1


def test_time_is_up_though_the_server_is_silent(copied):
    held = threading.Event()
    copied.script = [Scripted(body=b"", held=held)]
    engine = RemoteEngine(Endpoint(url=copied.url))
    start = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        list(engine.stream(request((1, 2)), timeout=0.1))
    assert time.monotonic() - start < 60
    held.set()


def test_a_request_that_does_not_fit_is_not_sent(copied):
    engine = RemoteEngine(Endpoint(url=copied.url))
    with pytest.raises(ContextWindowError):
        list(engine.stream(request((1, 2), max_tokens=10**6)))
    assert copied.bodies == []


@pytest.mark.parametrize(
    ("models", "kind", "said"),
    [
        ({"data": [{"id": "gpt", "owned_by": "openai"}]}, CheckpointNotFoundError, "'openai'"),
        ({"data": []}, DecodingError, "base_url"),
        ({"object": "list"}, DecodingError, "base_url"),
        (b"<html>", DecodingError, "base_url"),
    ],
)
def test_other_servers_are_refused(scripted, models, kind, said):
    scripted.paths["/v1/models"] = Scripted(body=models)
    with pytest.raises(kind, match=said):
        RemoteEngine(Endpoint(url=scripted.url))


def test_nobody_there_is_an_error_that_names_the_address():
    with pytest.raises(EngineUnreachableError, match=r"127\.0\.0\.1:9"):
        RemoteEngine(Endpoint(url="http://127.0.0.1:9", max_retries=0))


def test_events_are_those_of_an_engine(served, engine):
    answer = list(engine.stream(request(tuple(engine.tokenizer("hi").input_ids), max_tokens=5)))
    assert all(isinstance(event, TextDelta) for event in answer[:-1])
    end = answer[-1]
    assert isinstance(end, Finished)
    assert end.unreported == frozenset()
    assert 0 < end.time_to_first_token <= end.seconds


def test_a_forked_process_begins_anew(served, remote):
    """A connection's thread does not live on in a fork: what was kept counts as closed there."""
    engine = remote.engine
    expected = remote.invoke("hi").content
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = f"{engine.closed} {find_remote(engine.endpoint)} {remote.invoke('hi').content}"
        os.write(write, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000).decode() == f"True None {expected}"
    assert not engine.closed
