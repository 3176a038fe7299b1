"""Log p of given answers equals full forward passes, whatever shares a pass, and costs each token once."""

import asyncio
import random
import threading
import time

import pytest
import torch

from langchain_eft.engine.analysis import scoring, tree_passes
from langchain_eft.engine.analysis.prefix_tree import PrefixTree
from langchain_eft.engine.analysis.term_outputs import Reading, term_outputs
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import (
    ContextWindowError,
    DecodingError,
    EngineClosedError,
    RecipeError,
    RequestError,
)
from langchain_eft.engine.events import Finished, TextDelta
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.schedules import Ramp
from langchain_eft.engine.request import GivenAnswers
from langchain_eft.engine.scheduling.scheduler import Scheduler
from unit_tests.helpers import (
    Recorder,
    await_until,
    counted_tokens,
    endless,
    every_family,
    finished,
    no_memory,
    request,
)

MIXTURES = [
    ({}, {}),
    ({"one": 1.0}, {}),
    ({"one": 0.7, "two": 0.4, "full": 0.3}, {}),
    ({"two": 1.0}, {"upscale_strength": 1.5}),
    ({"one": 1.0}, {"upscale_top_p": 0.6}),
]


def texts(seed, count, low, high):
    rng = random.Random(seed)
    return [tuple(rng.randrange(4, 250) for _ in range(rng.randrange(low, high))) for _ in range(count)]


def expected(reference, prompt, answer, mixture, options):
    rows = reference.all_logprobs(
        [*prompt, *answer[:-1]],
        len(answer),
        mixture,
        options.get("upscale_strength", 1.0),
        options.get("upscale_top_p", 1.0),
    )
    return rows[range(len(answer)), answer].tolist()


@pytest.fixture
def tokens_run(monkeypatch):
    """Tokens of each forward pass."""
    return counted_tokens(monkeypatch)


@pytest.mark.slow
@every_family
@pytest.mark.parametrize(("mixture", "options"), MIXTURES)
def test_logprobs_are_those_of_full_passes(engine, reference, mixture, options):
    shared, *tails = texts(0, 6, 3, 40)
    answers = (*texts(1, 4, 1, 6), (7, 8), (7, 8, 9), (7,))
    given = [GivenAnswers(request(shared + tail, mixture, **options), answers) for tail in tails]
    scores = engine.answer_logprobs(given)
    for tail, of_prompt in zip(tails, scores.logprobs, strict=True):
        for answer, logprobs in zip(answers, of_prompt, strict=True):
            assert logprobs == pytest.approx(
                expected(reference, shared + tail, answer, mixture, options), abs=1e-4
            )


def test_requests_of_different_mixtures_are_scored_together(engine, reference):
    (prompt,), answers = texts(2, 1, 20, 30), tuple(texts(3, 3, 2, 5))
    given = [GivenAnswers(request(prompt, mixture, **options), answers) for mixture, options in MIXTURES]
    for (mixture, options), of_prompt in zip(MIXTURES, engine.answer_logprobs(given).logprobs, strict=True):
        for answer, logprobs in zip(answers, of_prompt, strict=True):
            assert logprobs == pytest.approx(expected(reference, prompt, answer, mixture, options), abs=1e-4)


def test_a_weight_that_changes_counts_from_the_beginning_of_the_answer(engine, reference):
    (prompt,), (answer,) = texts(4, 1, 10, 20), texts(5, 1, 5, 6)
    ramp = Ramp(start=0, end=1, tokens=4)
    (logprobs,) = engine.answer_logprobs([GivenAnswers(request(prompt, {"one": ramp}), (answer,))]).logprobs[
        0
    ]
    for position, logprob in enumerate(logprobs):
        text = [*prompt, *answer[:position]]
        log_p = reference.logprobs(text, {"one": min(position / 4, 1.0)})
        assert logprob == pytest.approx(float(log_p[answer[position]]), abs=1e-4)


@pytest.mark.parametrize(("mixture", "options"), [*MIXTURES, ({"one": Gate(below=0.1)}, {})])
def test_scores_of_an_answer_are_what_decoding_said_of_it(engine, mixture, options):
    drawn = request(texts(22, 1, 10, 20)[0], mixture, endless(), 12, top_logprobs=0, **options)
    deltas = [event for event in engine.stream(drawn) if isinstance(event, TextDelta)]
    answer = tuple(token for delta in deltas for token in delta.tokens)
    ((scores,),) = engine.answer_logprobs([GivenAnswers(drawn, (answer,))]).logprobs
    assert scores == pytest.approx([each.logprob for delta in deltas for each in delta.logprobs], abs=1e-5)


def test_every_distinct_token_runs_once(engine, tokens_run):
    (shared,), tails, answers = texts(6, 1, 100, 101), texts(7, 8, 5, 6), ((5, 6, 7), (5, 6, 8), (5, 9, 9))
    given = [GivenAnswers(request(shared + tail, {}), answers) for tail in tails]
    scores = engine.answer_logprobs(given)
    behind = {answer[:i] for answer in answers for i in range(1, len(answer))}
    assert sum(tokens_run) == 100 + 8 * (5 + len(behind))
    assert scores.cached_tokens == 7 * 100
    tokens_run.clear()
    again = engine.answer_logprobs(given)
    cached = (
        104 // engine.config.block_size * engine.config.block_size
    )  # all full blocks before the last token
    assert sum(tokens_run) == 100 + 8 * (5 + len(behind)) - cached
    assert again.cached_tokens == 7 * 100 + cached
    assert torch.tensor(again.logprobs).allclose(torch.tensor(scores.logprobs), atol=1e-4)


def test_a_prompt_that_was_decoded_is_not_computed_again(engine, tokens_run):
    (prompt,) = texts(8, 1, 60, 61)
    list(engine.stream(request(prompt, {"one": 1.0}, max_tokens=4)))
    tokens_run.clear()
    engine.answer_logprobs([GivenAnswers(request(prompt, {"one": 1.0}), ((5,),))])
    assert max(tokens_run) <= 4 * 2


@pytest.mark.parametrize("one_depth", [False, True])
def test_passes_may_be_small_and_of_one_depth(engine, reference, monkeypatch, one_depth):
    monkeypatch.setattr(scoring, "_TOKENS_PER_GROUP", 9)
    monkeypatch.setattr(tree_passes, "_TOKENS_PER_FORWARD", 16)
    monkeypatch.setattr(tree_passes, "_KEYS_PER_FORWARD", 150)
    monkeypatch.setattr(tree_passes, "has_kernel", lambda device: one_depth)
    shared, *tails = texts(9, 4, 30, 60)
    answers = tuple(texts(10, 5, 1, 6))
    given = [GivenAnswers(request(shared + tail, {"one": 1.0}), answers) for tail in tails]
    for tail, of_prompt in zip(tails, engine.answer_logprobs(given).logprobs, strict=True):
        for answer, logprobs in zip(answers, of_prompt, strict=True):
            assert logprobs == pytest.approx(
                expected(reference, shared + tail, answer, {"one": 1.0}, {}), abs=1e-4
            )


@pytest.mark.slow
def test_scoring_and_decoding_share_the_engine(engine, reference):
    prompts = texts(11, 6, 10, 40)
    alone = [
        [e.tokens for e in engine.stream(request(p, {"one": 1.0}, max_tokens=24)) if hasattr(e, "tokens")]
        for p in prompts
    ]
    answers = tuple(texts(12, 3, 2, 5))
    scores = []

    def score():
        scores.extend(
            engine.answer_logprobs([GivenAnswers(request(p, {"one": 1.0}), answers)]) for p in prompts
        )

    thread = threading.Thread(target=score)
    thread.start()
    together = engine.generate([request(p, {"one": 1.0}, max_tokens=24) for p in prompts])
    thread.join()
    flat = [[t for tokens in each for t in tokens] for each in alone]
    assert [[t for e in events if hasattr(e, "tokens") for t in e.tokens] for events in together] == flat
    for prompt, score_of in zip(prompts, scores, strict=True):
        for answer, logprobs in zip(answers, score_of.logprobs[0], strict=True):
            assert logprobs == pytest.approx(expected(reference, prompt, answer, {"one": 1.0}, {}), abs=1e-4)
    stats = engine.stats()
    assert stats.free_blocks == stats.blocks


def test_without_room_scoring_uses_memory_of_its_own(family, reference):
    engine = Engine(family.recipe, EngineConfig(device="cpu", kv_cache_tokens=32, block_size=4))
    try:
        (prompt,), answers = texts(13, 1, 20, 21), tuple(texts(14, 6, 6, 7))
        (scores,) = engine.answer_logprobs([GivenAnswers(request(prompt, {"two": 1.0}), answers)]).logprobs
        for answer, logprobs in zip(answers, scores, strict=True):
            assert logprobs == pytest.approx(expected(reference, prompt, answer, {"two": 1.0}, {}), abs=1e-4)
        assert engine.stats().free_blocks == engine.stats().blocks
    finally:
        engine.close()


async def test_scoring_waits_without_blocking_and_can_be_cancelled(engine, monkeypatch):
    (prompt,), answers = texts(15, 1, 30, 31), tuple(texts(16, 3, 2, 5))
    given = [GivenAnswers(request(prompt, {"one": 1.0}), answers)]
    (scores,), (expected_scores,) = (
        (await engine.aanswer_logprobs(given)).logprobs,
        engine.answer_logprobs(given).logprobs,
    )
    for own, other in zip(scores, expected_scores, strict=True):
        assert own == pytest.approx(other, abs=1e-4)
    free, go_on = asyncio.Event(), threading.Event()
    loop, run = asyncio.get_running_loop(), CausalModel.__call__

    def held(model, *args, **kwargs):
        loop.call_soon_threadsafe(free.set)
        go_on.wait(10)
        return run(model, *args, **kwargs)

    monkeypatch.setattr(CausalModel, "__call__", held)
    (other,) = texts(17, 1, 30, 31)
    task = asyncio.create_task(engine.aanswer_logprobs([GivenAnswers(request(other, {"one": 1.0}), answers)]))
    await free.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    go_on.set()
    engine.answer_logprobs(given)  # the loop goes on, and what was borrowed is back
    assert engine.stats().free_blocks == engine.stats().blocks


async def test_a_request_waits_for_memory_that_scoring_has_borrowed(family, monkeypatch):
    """Without a round after the other: between two steps of scoring there is nothing to do."""
    rounds, schedule = [], Scheduler.schedule
    monkeypatch.setattr(Scheduler, "schedule", lambda *args: rounds.append(0) or schedule(*args))
    engine = Engine(family.recipe, EngineConfig(device="cpu", kv_cache_tokens=64, block_size=4))
    try:
        (prompt,), answers = texts(20, 1, 48, 49), tuple(texts(21, 3, 3, 4))
        scoring = asyncio.create_task(
            engine.aanswer_logprobs([GivenAnswers(request(prompt, {"one": 1.0, "full": 0.5}), answers)])
        )
        await await_until(lambda: engine.stats().free_blocks < 4)
        waiting = Recorder()
        engine.submit(request((5,) * 20, max_tokens=4), waiting)
        time.sleep(0.3)  # noqa: ASYNC251  (the event loop asks for no further step meanwhile)
        assert len(rounds) < 20
        assert (engine.stats().waiting, engine.stats().preemptions) == (1, 0)
        await scoring
        await await_until(lambda: waiting.ended)
        assert isinstance(waiting.events[-1], Finished)
    finally:
        engine.close()


async def test_texts_are_compared_in_another_thread_than_the_event_loops(engine, monkeypatch):
    threads, add = set(), PrefixTree.add

    def watched(*args):
        threads.add(threading.current_thread())
        return add(*args)

    monkeypatch.setattr(PrefixTree, "add", watched)
    await engine.aanswer_logprobs([GivenAnswers(request((5, 6), {}), ((7, 8),))])
    assert threads
    assert threading.current_thread() not in threads


@pytest.mark.parametrize(
    ("prompt", "mixture", "answers", "error", "said"),
    [
        ((5,), {}, (), RequestError, "no tokens"),
        ((5,), {}, ((),), RequestError, "no tokens"),
        ((5,), {}, ((10**6,),), RequestError, "outside the vocabulary"),
        ((10**6,), {}, ((5,),), RequestError, "outside the vocabulary"),
        ((5,), {"nobody": 1.0}, ((5,),), RecipeError, "nobody"),
        ((5,), {}, ((5,) * 2000,), ContextWindowError, "2000"),
    ],
)
def test_what_cannot_be_scored_is_refused(engine, prompt, mixture, answers, error, said):
    with pytest.raises(error, match=said):
        engine.answer_logprobs([GivenAnswers(request(prompt, mixture), answers)])


def test_nothing_to_score_is_refused(engine):
    with pytest.raises(RequestError, match="at least one"):
        engine.answer_logprobs([])


def test_outputs_that_are_nan_fail_the_call_alone(engine, monkeypatch):
    run = CausalModel.__call__
    monkeypatch.setattr(CausalModel, "__call__", lambda *args, **kwargs: run(*args, **kwargs) * torch.nan)
    (prompt,) = texts(18, 1, 30, 31)
    given = [GivenAnswers(request(prompt, {}), ((5, 6),))]
    with pytest.raises(DecodingError, match="NaN"):
        engine.answer_logprobs(given)
    monkeypatch.undo()
    assert engine.answer_logprobs(given).logprobs[0][0][0] < 0
    assert engine.stats().free_blocks == engine.stats().blocks


def test_a_log_p_that_is_not_finite_is_an_error(engine, monkeypatch):
    run = scoring.project
    monkeypatch.setattr(scoring, "project", lambda *args: run(*args).fill_(torch.inf))
    with pytest.raises(DecodingError, match="smaller weights"):
        engine.answer_logprobs([GivenAnswers(request((5, 6), {}), ((7,),))])


def test_a_closed_engine_scores_nothing(family):
    engine = Engine(family.recipe, EngineConfig(device="cpu", kv_cache_tokens=64))
    engine.close()
    with pytest.raises(EngineClosedError):
        engine.answer_logprobs([GivenAnswers(request((5,), {}), ((6,),))])


def test_terms_that_read_different_texts_have_trees_of_their_own(engine, reference):
    base, (tuned, small) = engine.family.base, engine.family.behaviors["full"]
    long, short = texts(19, 2, 20, 40)
    answer = (9, 8, 7)
    readings = [
        Reading(base, long, (answer,)),
        Reading(tuned, short, (answer,)),
        Reading(small, long, (answer,)),
    ]

    def run(readings):
        """[answer, ...] outputs of each reading, and what was cached."""
        outputs = finished(term_outputs(engine.family, no_memory(engine.family), readings))
        rows = [torch.stack([outputs.rows[place] for place in places]) for (places,) in outputs.places]
        return rows, outputs.num_cached

    rows, cached = run(readings)
    for reading, own in zip(readings, rows, strict=True):
        (alone,), _ = run([reading])
        assert own.allclose(alone, atol=1e-5)
    assert cached == [0, 0, 0]
