"""Speculation changes the speed and never the answer; a wrong acceptance rule would be detected."""

import gc
import random
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.scheduling.draft_length import AcceptanceRates
from langchain_eft.engine.scheduling.speculator import Speculator
from unit_tests.helpers import (
    GREEDY,
    Recorder,
    answer,
    endless,
    engine_with,
    every_family_with,
    keep_every_draft_token,
    request,
    wait_until,
)
from unit_tests.oracle.filters import filtered

PROMPT = [7, 30, 9, 61, 61, 12]
MIXTURES = [
    {"one": 1.0},
    {"one": 0.6, "two": 0.9},
    {"full": 1.0},
    {"full": 0.5, "one": 0.7},
    {"two": 1.7},
    {},
]


DRAFTS = (*range(9), "auto", "off")


def run_together(engine, requests):
    """The tokens and the end of each answer, all in one batch."""
    recorders = [Recorder() for _ in requests]
    for each, recorder in zip(requests, recorders, strict=True):
        engine.submit(each, recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    return [(recorder.tokens, recorder.events[-1]) for recorder in recorders]


def run(engine, prompt=PROMPT, mixture=None, sampling=GREEDY, tokens=24, **kwargs):
    """The tokens of one answer and its end."""
    return run_together(engine, [request(prompt, mixture or {}, sampling, tokens, **kwargs)])[0]


def test_only_the_latest_kinds_of_requests_are_remembered():
    """Each user may have weights of their own."""
    speculator = Speculator(lambda terms: 0)
    for number in range(1000):
        speculator.initial_rates(request(PROMPT, {"one": number / 1000}))
    assert sum(type(each) is AcceptanceRates for each in gc.get_objects()) < 500


# Identity


@every_family_with("mixture", MIXTURES[1], MIXTURES[0], *MIXTURES[2:])
def test_greedy_answers_are_the_reference_loops_for_every_draft_length(engine, reference, mixture):
    """All of them in one batch, and two alone."""
    expected = reference.greedy(PROMPT, mixture, 24)
    for drafts in (DRAFTS, [4], ["auto"]):
        asked = [request(PROMPT, mixture, max_tokens=24, speculation=draft) for draft in drafts]
        for draft, (tokens, end) in zip(drafts, run_together(engine, asked), strict=True):
            assert tokens == expected, draft
            assert end.completion_tokens == end.accepted_tokens + end.verify_passes or end.reason == "stop"
            if draft in (0, "off"):
                assert end.drafted_tokens == 0


@pytest.mark.slow
@pytest.mark.parametrize("setting", [(1.5, 1.0), (1.0, 0.6), (0.0, 1.0), (1.3, 0.8)])
def test_strength_and_conservative_decoding_are_exact_with_drafts(engine, reference, setting):
    strength, top_p = setting
    mixture = {"one": 0.6, "two": 0.7}
    expected = reference.greedy(PROMPT, mixture, 24, strength, top_p)
    actual, _ = run(engine, mixture=mixture, speculation=4, upscale_strength=strength, upscale_top_p=top_p)
    assert actual == expected


@pytest.mark.slow
@every_family_with(
    "sampling",
    SamplingParams(temperature=1.0, seed=11),
    SamplingParams(temperature=0.8, top_p=0.8, seed=12),
    SamplingParams(temperature=1.2, top_k=20, min_p=0.02, repetition_penalty=1.2, seed=13),
    SamplingParams(
        temperature=1.0, frequency_penalty=0.5, presence_penalty=0.3, logit_bias={40: 3.0}, seed=14
    ),
    SamplingParams(temperature=0, repetition_penalty=1.3, seed=15),
)
def test_a_seed_gives_the_same_text_for_every_draft_length(engine, sampling):
    """Of every mixture, all in one batch; the first mixture's answer alone, too."""
    drafts = ("off", 1, 5, "auto", "auto")
    asked = [request(PROMPT, m, sampling, 24, speculation=draft) for m in MIXTURES for draft in drafts]
    answers = [tokens for tokens, _ in run_together(engine, asked)]
    for number, mixture in enumerate(MIXTURES):
        first, *others = answers[number * len(drafts) : (number + 1) * len(drafts)]
        assert others == [first] * len(others), mixture
    assert run(engine, mixture=MIXTURES[0], sampling=sampling, speculation=5)[0] == answers[0]


def test_drafts_of_a_similar_model_are_accepted(engine):
    end = run(
        engine, mixture={"one": 1.0}, sampling=endless(), tokens=40, speculation=3, upscale_strength=0.02
    )[1]
    assert end.acceptance_rate > 0.8
    assert end.verify_passes < 20


def test_prompt_lookup_drafts_without_small_models(engine, reference):
    pattern = [50, 60, 70, 80, 90, 100]
    tokens, end = run(engine, pattern * 5, {}, endless(), 30, speculation=5)
    plain, _ = run(engine, pattern * 5, {}, endless(), 30, speculation="off")
    assert tokens == plain
    assert end.drafted_tokens > 0


@dataclass
class Plan:
    prompt: list[int]
    mixture: dict[str, float]
    draft: object
    tokens: int
    cancelled: bool


def plans(seed, count=16):
    rng = random.Random(seed)
    beginnings = [[rng.randrange(4, 250) for _ in range(rng.randrange(1, 40))] for _ in range(3)]
    return [
        Plan(
            prompt=rng.choice(beginnings) + [rng.randrange(4, 250) for _ in range(rng.randrange(1, 12))],
            mixture=rng.choice(MIXTURES),
            draft=rng.choice([*range(9), "auto", "off"]),
            tokens=rng.randrange(1, 24),
            cancelled=rng.random() < 0.2,
        )
        for _ in range(count)
    ]


def answer_as_alone(engine, reference, seed):
    """Decode all plans together, cancelling some on the way: every answer is that of the reference loop."""
    blocks = engine.stats().free_blocks
    work = [(plan, Recorder()) for plan in plans(seed)]
    generations = []
    for plan, recorder in work:
        one = request(plan.prompt, plan.mixture, GREEDY, plan.tokens, speculation=plan.draft)
        generations.append(engine.submit(one, recorder))
    wait_until(lambda: any(recorder.ended for _, recorder in work))
    for (plan, _), generation in zip(work, generations, strict=True):
        if plan.cancelled:
            generation.cancel()
    wait_until(lambda: all(recorder.ended or plan.cancelled for plan, recorder in work))
    for plan, recorder in work:
        expected = reference.greedy(plan.prompt, plan.mixture, plan.tokens)
        assert recorder.tokens == (expected[: len(recorder.tokens)] if plan.cancelled else expected)
    wait_until(lambda: engine.stats().free_blocks == blocks)


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), blocks=st.integers(24, 90), chunk=st.sampled_from([3, 16, 64]))
def test_rows_that_join_leave_cancel_and_are_preempted_answer_as_alone(
    family, reference, seed, blocks, chunk
):
    config = EngineConfig(
        kv_cache_tokens=4 * blocks, block_size=4, max_num_batched_tokens=chunk, max_batch_size=16
    )
    engine = Engine(family.recipe, config)
    try:
        answer_as_alone(engine, reference, seed)
    finally:
        engine.close()


# Distributions


SETTINGS = [
    (draft, mixture, sampling, eft)
    for draft in ("off", 3)  # a seed draws the same with every other length
    for mixture, sampling, eft in [
        ({"one": 1.0}, {"temperature": 1.0}, {}),
        ({"one": 0.5, "two": 0.8}, {"temperature": 0.7}, {"upscale_top_p": 0.8}),
        ({"full": 1.0}, {"temperature": 1.3, "top_p": 0.85}, {}),
        ({"two": 1.5}, {"temperature": 1.0, "top_k": 12}, {"upscale_strength": 1.4}),
        ({"one": 1.0}, {"temperature": 1.0, "min_p": 0.05}, {"upscale_strength": 0.3}),
    ]
]


def surprise(reference, answers, mixture, sampling, eft):
    """p-value of sum log p(y) + H(p) over all tokens, which has mean 0 if the answers are samples of p."""
    total = variance = 0.0
    for tokens in answers:
        ids = [*PROMPT, *tokens[:-1]]
        logprobs = reference.all_logprobs(
            ids, len(tokens), mixture, eft.get("upscale_strength", 1.0), eft.get("upscale_top_p", 1.0)
        )
        p = filtered(logprobs, **sampling)
        logs = p.clamp(min=1e-300).log()
        entropy = -(p * logs).sum(-1)
        total += float((logs.gather(1, torch.tensor(tokens)[:, None])[:, 0] + entropy).sum())
        variance += float(((p * logs**2).sum(-1) - entropy**2).sum())
    return 2 * stats.norm.sf(abs(total) / variance**0.5)


def sampled(engine, draft, mixture, sampling, eft, n=48, tokens=6):
    asked = [
        request(PROMPT, mixture, SamplingParams(**sampling, seed=seed), tokens, speculation=draft, **eft)
        for seed in range(n)
    ]
    return [answer for answer, _ in run_together(engine, asked)]


@pytest.mark.slow
def test_samples_follow_p_in_every_setting(engine, reference):
    pvalues = [surprise(reference, sampled(engine, *setting), *setting[1:]) for setting in SETTINGS]
    assert min(pvalues) > 1e-4 / len(SETTINGS)
    # Draft lengths share their seeds, so only the settings are independent.
    independent = pvalues[:5]
    assert stats.kstest(independent, "uniform").pvalue > 1e-3


@pytest.mark.slow
def test_a_rule_that_keeps_every_draft_token_is_detected(family, reference):
    setting = ({"one": 1.0}, {"temperature": 1.0}, {})
    with engine_with(family, accept_or_resample=keep_every_draft_token) as engine:
        assert surprise(reference, sampled(engine, 3, *setting), *setting) < 1e-6


@pytest.mark.slow
def test_pairs_of_tokens_follow_their_joint_distribution(engine, reference):
    """Chi-squared over the pairs that are common, where the second token is a verified draft token."""
    mixture, n = {"one": 1.0}, 1200
    setting = {"temperature": 0.5, "top_k": 4}
    answers = sampled(engine, 1, mixture, setting, {}, n=n, tokens=2)
    first = filtered(reference.all_logprobs(PROMPT, 1, mixture), **setting)[0]
    expected = {}
    for token in first.nonzero()[:, 0].tolist():
        second = filtered(reference.all_logprobs([*PROMPT, token], 1, mixture), **setting)[0]
        for following in second.nonzero()[:, 0].tolist():
            key = (token, following) if token else (token,)
            expected[key] = expected.get(key, 0.0) + n * float(first[token] * second[following])
    common = [key for key, count in expected.items() if count >= 5]
    observed = [sum(tuple(a) == key for a in answers) for key in common]
    rest = sum(expected[key] for key in expected if key not in common)
    assert all(tuple(a) in expected for a in answers)
    assert (
        stats.chisquare([*observed, n - sum(observed)], [*(expected[k] for k in common), rest]).pvalue > 1e-4
    )


def test_speculation_shows_in_the_statistics(engine):
    before = engine.stats()
    _, end = answer(engine, request(PROMPT, {"one": 1.0}, endless(), 20, speculation=3))
    after = engine.stats()
    assert after.drafted_tokens - before.drafted_tokens == end.drafted_tokens > 0
    assert after.accepted_tokens - before.accepted_tokens == end.accepted_tokens
    assert after.generated_tokens - before.generated_tokens == end.completion_tokens == 20
