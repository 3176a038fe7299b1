"""The engine on a tiny random family: exact, fair, cancellable, and honest about what it cannot do."""

import asyncio
import random
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats as statistics

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import RequestTimeoutError
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import (
    Recorder,
    answer,
    await_until,
    counted_tokens,
    endless,
    engine_of,
    every_family,
    every_family_with,
    full,
    random_prompts,
    request,
    slow,
    text_of,
    wait_until,
)

SETTINGS = [
    ({}, 1.0, 1.0),
    ({"one": 1.0}, 1.0, 1.0),
    ({"one": 0.5, "two": 1.5}, 1.0, 1.0),
    ({"full": 1.0, "two": 0.7}, 1.0, 1.0),
    ({"two": 1.0}, 1.5, 1.0),
    ({"two": 1.0}, 0.0, 1.0),
    ({"one": 1.0}, 1.0, 0.6),
    ({"one": 0.5, "two": 0.5}, 1.5, 0.9),
    ({}, 1.3, 0.8),
]


def eft(mixture, strength=1.0, top_p=1.0, **kwargs):
    return {"mixture": mixture, "upscale_strength": strength, "upscale_top_p": top_p, **kwargs}


@pytest.mark.parametrize("kind", ["compact", "padded"])
@pytest.mark.parametrize("drafts", [0, 3])
def test_biases_are_added_to_log_p(family, reference, kind, drafts):
    """Rows without biases decode beside them, and rows with other numbers of them."""
    prompt, mixture = [30, 31, 9, 40, 77], {"one": 1.0}
    biases = [{}, {40: 100.0}, {reference.greedy(prompt, mixture, 1)[0]: -100.0, 8: 2.0, 9: 2.0}]
    with engine_of(family.recipe, kind, kv_cache_tokens=512, block_size=4) as engine:
        streams = [
            engine.stream(
                request(
                    prompt,
                    mixture,
                    SamplingParams(temperature=0, logit_bias=bias, repetition_penalty=1.0 + 0.2 * len(bias)),
                    max_tokens=6,
                    speculation=drafts,
                )
            )
            for bias in biases
        ]
        answers = [
            [token for event in stream for token in getattr(event, "tokens", ())] for stream in streams
        ]
    for bias, tokens in zip(biases, answers, strict=True):
        for i, token in enumerate(tokens):
            text = [*prompt, *tokens[:i]]
            biased = reference.logprobs(text, mixture).clone()
            biased[list(set(text))] *= 1 + 0.2 * len(bias)  # the penalty
            for biased_token, value in bias.items():
                biased[biased_token] += value
            assert token == int(biased.argmax())


@every_family_with("setting", SETTINGS[7], *SETTINGS[:7], SETTINGS[8])
def test_greedy_decoding_equals_full_forwards(engine, reference, setting):
    mixture, strength, top_p = setting
    # Strength with two references is refused; the reference loop has only one, which "full" shares in value.
    for prompt in random_prompts(4):
        expected = reference.greedy(prompt, mixture, 25, strength, top_p)
        *deltas, end = engine.stream(request(prompt, max_tokens=25, **eft(mixture, strength, top_p)))
        assert [token for delta in deltas for token in delta.tokens] == expected
        # Which bytes that are no character are shown depends on when they came.
        assert "".join(delta.text for delta in deltas).rstrip("\ufffd") == text_of(engine, expected)
        assert end.completion_tokens == len(expected)


@every_family
@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_any_mix_of_concurrent_requests_answers_as_alone(engine, reference, seed):
    rng = random.Random(seed)
    work = []
    for prompt in random_prompts(rng.randrange(2, 17), seed):
        setting, steps = rng.choice(SETTINGS), rng.randrange(1, 20)
        work.append((prompt, setting, steps, Recorder(), rng.random() < 0.25))
    for prompt, setting, steps, recorder, cancelled in work:
        generation = engine.submit(request(prompt, max_tokens=steps, **eft(*setting)), recorder)
        time.sleep(rng.random() * 0.01)
        if cancelled:
            generation.cancel()
    wait_until(lambda: all(cancelled or recorder.ended for *_, recorder, cancelled in work))
    wait_until(lambda: engine.stats().running == 0)
    for prompt, (mixture, strength, top_p), steps, recorder, cancelled in work:
        if not cancelled:
            expected = reference.greedy(prompt, mixture, steps, strength, top_p)
            assert recorder.tokens == expected
    assert engine.stats().free_blocks == 4096 // 4


@pytest.mark.parametrize("setting", [*slow(*SETTINGS[:7:3]), *full(*SETTINGS[1:3], *SETTINGS[4:6])])
def test_samples_follow_p(engine, reference, setting):
    """First tokens of many seeds against the enumerated distribution."""
    mixture, strength, top_p = setting
    prompt, n = [7, 30, 9], 1500
    sampling = [SamplingParams(temperature=1.4, seed=seed) for seed in range(n)]
    recorders = [Recorder() for _ in range(n)]
    for params, recorder in zip(sampling, recorders, strict=True):
        engine.submit(request(prompt, sampling=params, max_tokens=1, **eft(*setting)), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    firsts = torch.tensor([recorder.tokens[0] for recorder in recorders])
    counts = firsts.bincount(minlength=len(engine.tokenizer))
    logprobs = reference.logprobs(prompt, mixture, strength, top_p)
    expected = (logprobs / 1.4).softmax(-1) * n
    order = expected.argsort(descending=True)
    common = order[expected[order] >= 5]
    rare = order[expected[order] < 5]
    observed = [*counts[common].tolist(), float(counts[rare].sum())]
    predicted = [*expected[common].tolist(), float(expected[rare].sum())]
    assert statistics.chisquare(observed, predicted).pvalue > 1e-4


@pytest.mark.slow
@every_family
def test_a_seed_gives_the_same_text_alone_and_in_a_batch(engine):
    prompt = random_prompts(1, seed=3)[0]
    sampling = SamplingParams(temperature=1.0, seed=42)
    alone = [answer(engine, request(prompt, {"one": 1.0}, sampling, max_tokens=30))[0] for _ in range(2)]
    recorders = [Recorder() for _ in range(16)]
    for i, recorder in enumerate(recorders):
        other = request(random_prompts(16)[i], {"two": 1.0}, SamplingParams(temperature=1.0), max_tokens=30)
        mine = request(prompt, {"one": 1.0}, sampling, max_tokens=30)
        engine.submit(mine if i == 7 else other, recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    assert alone[0] == alone[1] == recorders[7].text


@pytest.mark.parametrize("together", ["generate", "agenerate"])
def test_what_prompts_share_is_computed_once(engine, monkeypatch, together):
    prompt = random.Random(together).choices(range(4, 100), k=100)
    asked = [request([*prompt, 5 + i], max_tokens=1) for i in range(4)]
    tokens_run = counted_tokens(monkeypatch)
    answers = getattr(engine, together)(asked)
    if together == "agenerate":
        answers = asyncio.run(answers)
    assert [events[-1].completion_tokens for events in answers] == [1] * 4
    assert sum(tokens_run) < 101 + 3 * (1 + engine.config.block_size)


def test_without_a_seed_every_call_draws_its_own(engine):
    drawn = {
        answer(engine, request([9, 9], sampling=SamplingParams(temperature=2.0), max_tokens=12))[0]
        for _ in range(4)
    }
    assert len(drawn) > 1


@every_family
def test_stop_strings_end_the_answer_and_are_not_part_of_it(engine):
    prompt = random_prompts(1, seed=21)[0]
    whole, _ = answer(engine, request(prompt, {"one": 1.0}, max_tokens=40))
    stop = whole[5:8]
    cut, end = answer(engine, request(prompt, {"one": 1.0}, max_tokens=40, stop=("no such", stop)))
    assert cut == whole[: whole.index(stop)]
    assert end.reason == "stop"
    assert end.completion_tokens < 40


def test_length_is_the_reason_when_max_tokens_are_used_up(engine):
    prompt = next(
        p for p in random_prompts(9) if answer(engine, request(p, max_tokens=5))[1].reason == "length"
    )
    _, end = answer(engine, request(prompt, max_tokens=5))
    assert (end.prompt_tokens, end.completion_tokens) == (len(prompt), 5)
    assert 0 < end.time_to_first_token <= end.seconds


def test_closing_a_stream_frees_its_row(engine):
    before = engine.stats().free_blocks
    stream = engine.stream(request([5, 6], {"one": 1.0}, max_tokens=200, sampling=endless()))
    next(stream)
    assert engine.stats().running == 1
    generated = engine.stats().generated_tokens
    stream.close()
    wait_until(lambda: engine.stats().running == 0)
    assert engine.stats().free_blocks == before
    assert engine.stats().generated_tokens - generated < 100


async def test_cancelling_a_task_frees_its_row(engine):
    async def consume():
        async for _ in engine.astream(request([5, 6], max_tokens=200, sampling=endless())):
            started.set()

    started = asyncio.Event()
    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await await_until(lambda: engine.stats().running == 0)


async def test_async_streams_give_the_same_events(engine):
    prompt = random_prompts(1)[0]
    events = [e async for e in engine.astream(request(prompt, {"one": 1.0}, max_tokens=20))]
    assert (
        "".join(e.text for e in events[:-1])
        == answer(engine, request(prompt, {"one": 1.0}, max_tokens=20))[0]
    )
    assert isinstance(events[-1], Finished)
    assert all(isinstance(e, TextDelta) for e in events[:-1])


async def test_time_limits_end_sync_and_async_requests(engine):
    slow = request([5, 6], max_tokens=200, sampling=endless())
    with pytest.raises(RequestTimeoutError, match=r"timeout=0\.001"):
        list(engine.stream(slow, timeout=0.001))
    with pytest.raises(RequestTimeoutError, match=r"timeout=0\.001"):
        _ = [e async for e in engine.astream(slow, timeout=0.001)]
    await await_until(lambda: engine.stats().running == 0)


def test_bfloat16_runs(family):
    engine = Engine(family.recipe, EngineConfig(dtype="bfloat16", kv_cache_tokens=512))
    try:
        assert answer(engine, request([5, 6, 7], {"one": 1.0}, max_tokens=5))[1].completion_tokens <= 5
    finally:
        engine.close()
