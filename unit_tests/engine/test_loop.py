"""The decoding loop: requests get their turn, none is lost, and failures end requests, not the engine."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
import torch

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import DecodingError, DeviceLostError, EngineClosedError, QueueFullError
from langchain_eft.engine.events import Failed, Finished
from langchain_eft.engine.loop import DecodingLoop
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import (
    GREEDY,
    Recorder,
    answer,
    counted_preparing,
    endless,
    engine_of,
    failing_rounds,
    failing_rows,
    poisoned,
    random_prompts,
    request,
    slow,
    wait_until,
)

BLOCK = 4
PROMPT = [7, 30, 9, 61, 61, 12, 99, 100, 101, 102, 103, 104, 105, 106]


@pytest.mark.slow
def test_a_pool_that_is_too_small_for_all_preempts_and_loses_nothing(family, reference):
    # Six requests of up to 50 tokens in 80 tokens of memory: most are computed more than once.
    small = Engine(family.recipe, EngineConfig(kv_cache_tokens=80, block_size=4, max_num_batched_tokens=8))
    try:
        work = [(prompt[:20], Recorder()) for prompt in random_prompts(6, seed=5)]
        for prompt, recorder in work:
            small.submit(request(prompt, {"one": 1.0}, max_tokens=30), recorder)
        wait_until(lambda: all(recorder.ended for _, recorder in work))
        for prompt, recorder in work:
            assert recorder.tokens == reference.greedy(prompt, {"one": 1.0}, 30)
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
    monkeypatch.setattr("langchain_eft.engine.analysis.scoring.term_outputs", lambda *args: 1 / 0)
    try:
        with pytest.raises(DecodingError, match="division by zero"):
            engine.score("one", (5, 6), [(7,)])
        wait_until(lambda: engine.closed)
        with pytest.raises(DeviceLostError, match="division by zero"):
            answer(engine, request([5]))
    finally:
        engine.close()


# One request's failure is its own

BAD = 240
"""Second token of requests that fail, and of no others."""

WORD = 'start: "ABC" /[a-d]{3,12}/'


SAMPLED = SamplingParams(seed=4)

# Their rounds overlap where they can: nothing that was drawn before decides how the next token is drawn.
PLAIN = [
    request([5, 6, 7], {"one": 1.0}, GREEDY, 16, speculation=3),
    request(PROMPT, {"full": 1.0}, SamplingParams(seed=1), 16, speculation="off"),
    request(PROMPT * 3, {"two": 0.5}, SamplingParams(temperature=1.2, top_p=0.9, seed=2), 16),
]
SPECIAL = [
    request([9, 8], {}, SamplingParams(top_k=9, repetition_penalty=1.2, seed=3), 16, speculation=4),
    request([30, 31], {"one": 1.0}, endless(), 16, grammar=WORD),
    request([40] * 40, {"two": 1.0}, endless(), 16, upscale_strength=1.5, top_logprobs=2),
]


class Company(NamedTuple):
    """An engine, requests that decode on it beside others, and their texts when they are alone."""

    engine: Engine
    neighbors: list
    texts: list

    def beside(self, *requests):
        """What is delivered for requests that run amid their neighbors, whose texts must not change."""
        everyone = [*self.neighbors[:2], *requests, *self.neighbors[2:]]
        recorders = [Recorder() for _ in everyone]
        for each, recorder in zip(everyone, recorders, strict=True):
            self.engine.submit(each, recorder)
        wait_until(lambda: all(recorder.ended for recorder in recorders))
        texts = [r.text for each, r in zip(everyone, recorders, strict=True) if each in self.neighbors]
        assert texts == self.texts
        assert self.engine.stats().free_blocks == 4096 // BLOCK
        return recorders[2 : 2 + len(requests)]


@pytest.fixture(
    scope="module",
    params=[
        ("compact", "special"),
        *slow(
            ("overlapped", "plain"),
            ("compact", "plain"),
            ("padded", "plain"),
            ("padded", "special"),
            ("overlapped", "special"),
        ),
    ],
    ids="-".join,
)
def company(request, family, engine):
    kind, neighbors = request.param[0], [*PLAIN, *SPECIAL] if request.param[1] == "special" else PLAIN
    settings = {"kv_cache_tokens": 4096, "block_size": BLOCK, "max_num_batched_tokens": 32}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("langchain_eft.engine.rounds.shape.MIN_CONTEXT", 32)
        with engine_of(family.recipe, kind, **settings) as own:
            yield Company(own, neighbors, [answer(engine, each)[0] for each in neighbors])


def bad_request(first, sampling=GREEDY, **kwargs):
    return request([first, BAD, 62, 63, 64], {"full": 1.0}, sampling, 16, **kwargs)


def is_bad(state):
    return state.request.prompt_ids[1] == BAD


@pytest.mark.parametrize(
    ("tokens", "error"),
    [(0, torch.OutOfMemoryError("device lost")), (6, RuntimeError("device lost"))],
    ids=["first", "later"],
)
def test_a_request_that_makes_rounds_fail_fails_alone(company, tokens, error):
    def fails(states):
        return any(is_bad(state) and state.num_output_tokens >= tokens for state in states)

    with failing_rows(fails, error):
        (bad,) = company.beside(bad_request(60, speculation=2))
    assert len(bad.tokens) >= tokens
    failure = bad.events[-1].error
    assert isinstance(failure, DecodingError)
    assert failure.__cause__ is error
    assert "device lost. The requests beside it go on, so a retry will likely fail" in str(failure)
    assert not failure.is_retryable


def test_rounds_that_are_too_large_run_in_parts(company):
    with failing_rows(lambda states: len(states) > 2, torch.OutOfMemoryError("out of memory")):
        company.beside()


def test_a_failure_of_every_row_is_everybodys_and_a_retry_may_help(company):
    recorders = [Recorder() for _ in range(5)]
    with failing_rows(lambda states: True, RuntimeError("device lost")):
        for i, recorder in enumerate(recorders):
            company.engine.submit(request([5, 6, i], {"one": 1.0}), recorder)
        wait_until(lambda: all(recorder.ended for recorder in recorders))
    for recorder in recorders:
        assert "device lost. A retry may help" in str(recorder.events[-1].error)
        assert recorder.events[-1].error.is_retryable
    assert company.engine.stats().free_blocks == 4096 // BLOCK


class Broken(Recorder):
    """A caller that cannot take its third event, nor any later one."""

    def __call__(self, event):
        super().__call__(event)
        if len(self.events) > 2:
            raise ValueError("broken caller")


def test_a_caller_that_takes_no_events_loses_its_own_request_only(company):
    broken = Broken()
    company.engine.submit(request([50, 51], {"one": 1.0}, endless(), 16, speculation="off"), broken)
    company.beside()
    assert isinstance(broken.events[-1], Failed)
    assert len(broken.events) == 4


@pytest.mark.parametrize("model", ["base", "tuned"])
def test_logits_that_are_not_finite_are_an_error_that_names_the_model(company, family, model):
    base, (tuned, _) = company.engine.family.base, company.engine.family.behaviors["full"]
    kinds = [{"speculation": "off"}, {"speculation": 3}, {"top_logprobs": 2}]
    if len(company.neighbors) > 3:
        kinds += [{"upscale_top_p": 0.7}, {"trace": True}, {"grammar": WORD}, {"sampling": endless()}]
    requests = [
        bad_request(61, **{**kind, **sampled}) for kind in kinds for sampled in ({}, {"sampling": SAMPLED})
    ]
    with poisoned(company.engine, base if model == "base" else tuned, BAD, position=1):
        recorders = company.beside(*requests)
    named = {
        "base": f"the base '{family.folder / 'base'}'",
        "tuned": f"the tuned model of 'full' ('{family.folder / 'tuned'}')",
    }
    for recorder in recorders:
        assert recorder.tokens == []
        failure = recorder.events[-1].error
        assert isinstance(failure, DecodingError)
        assert f"The logits of {named[model]} are NaN or infinite after 5 tokens" in str(failure)
        assert not failure.is_retryable


@pytest.mark.slow
@pytest.mark.parametrize("speculation", ["off", 4])
@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(seed=7)], ids=["greedy", "sampled"])
def test_an_answer_ends_where_logits_cease_to_be_finite(company, sampling, speculation):
    """The text before is delivered, and no text after."""
    plain = request([5, 6, 7], {"one": 1.0}, sampling, 16, speculation=speculation)
    recorder, spoiled = Recorder(), Recorder()
    company.engine.submit(plain, recorder)
    wait_until(lambda: recorder.ended)
    tokens = recorder.tokens
    with poisoned(company.engine, company.engine.family.base, tokens[8], position=3 + 8):
        company.engine.submit(plain, spoiled)
        wait_until(lambda: spoiled.ended)
    assert "the base" in str(spoiled.events[-1].error)
    assert spoiled.tokens == tokens[:9]


def test_later_requests_do_not_read_what_was_not_finite(company):
    prompt = [70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81]
    with (
        poisoned(company.engine, company.engine.family.base, 75, position=5),
        pytest.raises(DecodingError, match="the base"),
    ):
        answer(company.engine, request(prompt, {"one": 1.0}))
    before = company.engine.stats().cached_tokens
    assert answer(company.engine, request(prompt, {"one": 1.0}, endless(), 8))[1].completion_tokens == 8
    assert company.engine.stats().cached_tokens == before


def test_a_grammar_that_leaves_no_token_is_an_error(company, monkeypatch):
    none = np.zeros(-(-len(company.engine.tokenizer) // 32), np.int32)
    monkeypatch.setattr("langchain_eft.engine.decoding.grammar.Grammar.bits", lambda self, tokens=(): none)
    with pytest.raises(DecodingError, match=r"No token .* after 2 tokens.*grammar"):
        answer(company.engine, request([5, 6], {"one": 1.0}, grammar=WORD))


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_has_ended(family, monkeypatch):
    engine = Engine(family.recipe, EngineConfig(kv_cache_tokens=1024))
    recorder = Recorder()
    engine.submit(request([5], max_tokens=200, sampling=endless()), recorder)
    wait_until(lambda: recorder.events)

    def fail(self):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("langchain_eft.engine.scheduling.scheduler.Scheduler.remove_ended", fail)
        wait_until(lambda: engine.closed)
    with pytest.raises(EngineClosedError, match="closed"):
        engine.submit(request([5]), Recorder())
    engine.close()


def test_an_answer_that_has_ended_is_delivered_whatever_fails_after_it(company, monkeypatch):
    def fail(self, states):
        raise MemoryError("no memory for keys")

    recorder = Recorder()
    monkeypatch.setattr("langchain_eft.engine.scheduling.scheduler.Scheduler.cache_full_blocks", fail)
    company.engine.submit(request([5, 6], {"one": 1.0}, max_tokens=1), recorder)
    wait_until(lambda: recorder.ended)
    assert recorder.tokens
    monkeypatch.undo()
    assert answer(company.engine, request([5, 6], max_tokens=2))[1].completion_tokens


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


@pytest.mark.slow
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
def test_a_storm_of_requests_loses_nothing_and_leaks_nothing(family, monkeypatch):
    failed = []
    monkeypatch.setattr(DecodingLoop, "_start_anew", failed.append)
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
        assert not failed, "no round has to run again"
    finally:
        engine.close()


async def test_scoring_keeps_no_thread_while_it_waits(engine):
    """Otherwise a few callers who score would leave none to those who prepare requests."""
    expected = engine.score("one", (5, 6), [(7,)])
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    released = threading.Event()
    blocked = threading.Thread(target=engine._loop._submit(lambda: released.wait(60)).result)
    blocked.start()
    scoring = [asyncio.create_task(engine.ascore("one", (5, 6), [(7,)])) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 1), 30) == 1
    assert not any(each.done() for each in scoring)
    released.set()
    assert await asyncio.gather(*scoring) == [expected] * 3
    blocked.join()


async def test_several_answers_of_one_call_are_prepared_by_one_thread(engine, monkeypatch):
    running = counted_preparing(engine, monkeypatch)
    answers = await engine.agenerate([request([5], max_tokens=2) for _ in range(8)])
    assert (len(answers), max(running)) == (8, 1)
