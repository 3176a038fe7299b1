"""The decoding loop: requests get their turn, none is lost, and failures end requests, not the engine."""

import random

import pytest

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import DecodingError, DeviceLostError, EngineClosedError, QueueFullError
from langchain_eft.engine.events import Failed, Finished
from langchain_eft.engine.models.placement import Placement
from unit_tests.helpers import (
    GREEDY,
    Recorder,
    answer,
    endless,
    failing_rounds,
    random_prompts,
    request,
    text_of,
    wait_until,
)

BLOCK = 4
PROMPT = [7, 30, 9, 61, 61, 12, 99, 100, 101, 102, 103, 104, 105, 106]


def test_a_pool_that_is_too_small_for_all_preempts_and_loses_nothing(family, reference):
    # Six requests of up to 50 tokens in 80 tokens of memory: most are computed more than once.
    small = Engine(family.recipe, EngineConfig(kv_cache_tokens=80, block_size=4, max_num_batched_tokens=8))
    try:
        work = [(prompt[:20], Recorder()) for prompt in random_prompts(6, seed=5)]
        for prompt, recorder in work:
            small.submit(request(prompt, {"one": 1.0}, max_tokens=30), recorder)
        wait_until(lambda: all(recorder.ended for _, recorder in work))
        for prompt, recorder in work:
            assert recorder.text == text_of(small, reference.greedy(prompt, {"one": 1.0}, 30))
        wait_until(lambda: small.stats().free_blocks == 20)
    finally:
        small.close()


def test_a_failing_device_ends_the_requests_and_not_the_engine(engine):
    with failing_rounds("out of memory"), pytest.raises(DecodingError, match="out of memory") as error:
        answer(engine, request([5]))
    assert isinstance(error.value.__cause__, RuntimeError)
    assert answer(engine, request([5], max_tokens=3))[1].completion_tokens <= 3
    assert engine.stats().free_blocks == 4096 // 4


def test_a_lost_device_closes_the_engine_and_says_what_to_do(family, monkeypatch):
    """After an illegal access no call to the device succeeds, so the next request would only fail too."""
    engine = Engine(family.recipe, EngineConfig(kv_cache_tokens=1024))
    monkeypatch.setattr(Placement, "_answers", lambda placement: False)
    waiting = Recorder()
    try:
        with failing_rounds("CUDA error: an illegal memory access was encountered"):
            engine.submit(request([5, 6, 7], max_tokens=5), waiting)
            with pytest.raises(DeviceLostError, match=r"illegal memory access.*start a new one"):
                answer(engine, request([5]))
        wait_until(lambda: waiting.ended)
        assert isinstance(waiting.events[-1].error, DeviceLostError)
        assert engine.closed
        for call in (lambda: answer(engine, request([5])), lambda: engine.score("one", (5, 6), [(7,)])):
            with pytest.raises(DeviceLostError, match=r"illegal memory access.*start a new one"):
                call()
        with pytest.raises(DeviceLostError, match="start a new one"):
            Engine(family.recipe, EngineConfig(kv_cache_tokens=1024))
    finally:
        engine.close()


def test_a_device_that_is_lost_while_scoring_closes_the_engine_too(family, monkeypatch):
    engine = Engine(family.recipe, EngineConfig(kv_cache_tokens=1024))
    monkeypatch.setattr(Placement, "_answers", lambda placement: False)
    monkeypatch.setattr("langchain_eft.engine.engine.rewards", lambda *args: 1 / 0)
    try:
        with pytest.raises(DecodingError, match="division by zero"):
            engine.score("one", (5, 6), [(7,)])
        wait_until(lambda: engine.closed)
        with pytest.raises(DeviceLostError, match="division by zero"):
            answer(engine, request([5]))
    finally:
        engine.close()


def test_closing_fails_what_runs_and_refuses_what_comes(family):
    engine = Engine(family.recipe, EngineConfig(kv_cache_tokens=1024))
    recorder = Recorder()
    engine.submit(request([5], max_tokens=200, sampling=endless()), recorder)
    wait_until(lambda: recorder.events)
    engine.close()
    engine.close()
    assert isinstance(recorder.events[-1], Failed)
    assert isinstance(recorder.events[-1].error, EngineClosedError)
    with pytest.raises(EngineClosedError, match="closed"):
        engine.submit(request([5]), recorder)


def test_a_short_prompt_does_not_wait_for_a_long_one(family):
    engine = Engine(
        family.recipe, EngineConfig(kv_cache_tokens=1024, block_size=BLOCK, max_num_batched_tokens=8)
    )
    try:
        long, short = Recorder(), Recorder()
        engine.submit(request([*range(4, 204)], {"one": 1.0}, GREEDY, 4), long)
        engine.submit(request([5, 6, 7], {"one": 1.0}, GREEDY, 1), short)
        wait_until(lambda: short.ended)
        assert not long.ended
        wait_until(lambda: long.ended)
    finally:
        engine.close()


def submit_until_full(engine, recorders):
    while len(recorders) < 20:
        recorders.append(Recorder())
        engine.submit(request(PROMPT, {"one": 1.0}, endless(), 60), recorders[-1])


def test_a_full_queue_refuses_at_once_and_names_the_remedy(family):
    config = EngineConfig(kv_cache_tokens=400, block_size=BLOCK, max_batch_size=1, max_queued_requests=2)
    engine, recorders = Engine(family.recipe, config), []
    try:
        with pytest.raises(QueueFullError, match=r"2 requests wait .*max_queued_requests"):
            submit_until_full(engine, recorders)
        wait_until(lambda: all(recorder.ended for recorder in recorders[:-1]))
    finally:
        engine.close()


def storm(engine, rng, count):
    """Submit in bursts and cancel at random: recorders, whether each was cancelled, and refusals."""
    work, refused = [], 0
    for _ in range(count):
        prompt = PROMPT[: rng.randrange(1, 14)] + [rng.randrange(4, 250)] * rng.randrange(1, 30)
        one = request(
            prompt,
            rng.choice([{}, {"one": 1.0}, {"two": 0.4, "full": 1.0}]),
            max_tokens=rng.randrange(1, 20),
            speculation=rng.choice(["off", "auto", 1, 4]),
        )
        recorder, cancelled = Recorder(), rng.random() < 0.3
        try:
            generation = engine.submit(one, recorder)
        except QueueFullError:
            refused += 1
            wait_until(lambda: engine.stats().waiting < 4)
            continue
        work.append((recorder, cancelled))
        if cancelled and rng.random() < 0.2:
            wait_until(lambda r=recorder: r.events)
        if cancelled:
            generation.cancel()
    return work, refused


@pytest.mark.slow
def test_a_storm_of_requests_loses_nothing_and_leaks_nothing(family):
    config = EngineConfig(
        kv_cache_tokens=40 * BLOCK, block_size=BLOCK, max_queued_requests=12, max_num_batched_tokens=24
    )
    engine = Engine(family.recipe, config)
    try:
        work, refused = storm(engine, random.Random(5), 200)
        wait_until(lambda: all(recorder.ended or cancelled for recorder, cancelled in work))
        wait_until(lambda: engine.stats().free_blocks == 40)
        stats = engine.stats()
        assert (stats.running, stats.waiting) == (0, 0)
        assert refused
        assert all(isinstance(r.events[-1], Finished) for r, cancelled in work if not cancelled)
        assert stats.preemptions
    finally:
        engine.close()
