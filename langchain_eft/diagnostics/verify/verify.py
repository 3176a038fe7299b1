"""The engine against the reference loop: greedy tokens must be equal, samples must follow p."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import cycle, islice, product

import torch
from torch import Tensor

from langchain_eft.diagnostics.verify.plan import (
    ALPHA,
    BATCHES,
    FIRST_TOKENS,
    FIRST_TOKENS_PER_SAMPLE,
    GREEDY_SPECULATIONS,
    ROUNDING,
    SAMPLED,
    SAMPLED_SPECULATIONS,
    TESTS,
    Answer,
    Plan,
    describe,
)
from langchain_eft.diagnostics.verify.reference import Reference, distribution
from langchain_eft.diagnostics.verify.report import Report, Row, Verdict
from langchain_eft.diagnostics.verify.statistics import chi_squared_test, surprise, z_test
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.events import Event, Failed, Finished, TextDelta, acceptance_rate
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.request import Generation, GenerationRequest, SamplingParams


def verify(engine: Engine, plan: Plan, progress: Progress) -> Report:
    """Compare the engine with full forwards of its own models.

    Nobody else may use the engine meanwhile: the full forwards run in the caller's thread, on its models.

    Args:
        engine: An open engine.
        plan: What to verify.
        progress: Told what is being compared.

    Raises:
        EngineError: The engine refuses or fails a request.
    """
    started = time.perf_counter()
    reference = Reference(engine.family, plan)
    rows = [
        *greedy_rows(engine, reference, progress),
        *sampling_rows(engine, reference, progress),
        *first_token_rows(engine, reference, progress),
    ]
    return Report(tuple(rows), reference.exact, round(time.perf_counter() - started, 1))


def decode(engine: Engine, requests: Sequence[GenerationRequest], batch: int) -> list[Answer]:
    """Decode requests, `batch` of them together.

    Raises:
        EngineError: The engine refuses or fails a request.
    """
    groups = (requests[start : start + batch] for start in range(0, len(requests), batch))
    return [answer for group in groups for answer in _decode_together(engine, group)]


def _decode_together(engine: Engine, requests: Sequence[GenerationRequest]) -> list[Answer]:
    queues: list[queue.SimpleQueue[Event]] = [queue.SimpleQueue() for _ in requests]
    generations: list[Generation] = []
    try:
        for request, events in zip(requests, queues, strict=True):
            generations.append(engine.submit(request, events.put))
        return [_collect(request, events) for request, events in zip(requests, queues, strict=True)]
    finally:
        for generation in generations:
            generation.cancel()


def _collect(request: GenerationRequest, events: queue.SimpleQueue[Event]) -> Answer:
    answer = Answer(request.prompt_ids)
    while True:
        match events.get():
            case TextDelta(tokens=tokens):
                answer.tokens += tokens
            case Finished(drafted_tokens=drafted, accepted_tokens=accepted):
                answer.drafted, answer.accepted = drafted, accepted
                return answer
            case Failed(error=error):
                raise error


def greedy_rows(engine: Engine, reference: Reference, progress: Progress) -> Iterator[Row]:
    """Greedy answers of every draft length, alone and in a batch, against the most probable tokens."""
    plan = reference.plan

    @cache
    def expected(prompt: tuple[int, ...], tokens: tuple[int, ...]) -> list[int]:
        """What the greedy loop would say at every position if it had said the rest."""
        likeliest: list[int] = reference.log_p_of(Answer(prompt, list(tokens))).argmax(-1).tolist()
        return likeliest

    for speculation, batch in product(GREEDY_SPECULATIONS, BATCHES):
        progress(f"Greedy answers, speculation {speculation}, batch {batch}")
        greedy = SamplingParams(temperature=0, seed=plan.seed)
        prompts = islice(cycle(plan.prompts), max(batch, len(plan.prompts)))
        requests = [plan.request(prompt, greedy, speculation, plan.max_tokens) for prompt in prompts]
        answers = decode(engine, requests, batch)
        pairs = [
            pair
            for answer in answers
            for pair in zip(answer.tokens, expected(answer.prompt, tuple(answer.tokens)), strict=True)
        ]
        equal = sum(said == wanted for said, wanted in pairs)
        yield Row(
            what="greedy",
            speculation=speculation,
            batch=batch,
            tokens=len(pairs),
            statistic="equal",
            value=equal / len(pairs),
            p_value=None,
            acceptance_rate=_acceptance_rate(answers),
            verdict=_verdict(passed=equal == len(pairs)) if reference.exact else "not compared bit for bit",
        )


def sampling_rows(engine: Engine, reference: Reference, progress: Progress) -> Iterator[Row]:
    """Sampled answers: are their tokens as surprising, on the whole, as tokens of p are?"""
    plan = reference.plan
    cases = product(SAMPLED, SAMPLED_SPECULATIONS, BATCHES)
    for number, (sampling, speculation, batch) in enumerate(cases):
        progress(f"Samples, {describe(sampling)}, speculation {speculation}, batch {batch}")
        requests = [
            plan.request(
                prompt,
                sampling.model_copy(update={"seed": plan.seed + number * plan.samples + i}),
                speculation,
                plan.max_tokens,
            )
            for i, prompt in enumerate(islice(cycle(plan.prompts), plan.samples))
        ]
        answers = decode(engine, requests, batch)
        z, p_value = z_test(
            [surprise(reference.log_p_of(answer), answer.tokens, sampling) for answer in answers]
        )
        yield Row(
            what=describe(sampling),
            speculation=speculation,
            batch=batch,
            tokens=sum(len(answer.tokens) for answer in answers),
            statistic="z",
            value=z,
            p_value=p_value,
            acceptance_rate=_acceptance_rate(answers),
            verdict=_verdict(passed=p_value >= ALPHA / TESTS),
        )


def first_token_rows(engine: Engine, reference: Reference, progress: Progress) -> Iterator[Row]:
    """First tokens of many seeds after one prompt: does each come as often as p says?"""
    plan, batch = reference.plan, engine.config.max_batch_size
    prompt, log_p = _most_open(reference)
    n = FIRST_TOKENS_PER_SAMPLE * plan.samples
    for number, sampling in enumerate(FIRST_TOKENS):
        progress(f"{n} first tokens, {describe(sampling)}")
        seeds = range(plan.seed + number * n, plan.seed + (number + 1) * n)
        requests = [
            plan.request(prompt, sampling.model_copy(update={"seed": seed}), "auto", 1) for seed in seeds
        ]
        firsts = torch.tensor([answer.tokens[0] for answer in decode(engine, requests, batch)])
        expected = distribution(log_p, sampling).cpu() * n
        counts = firsts.bincount(minlength=len(expected))
        rounding = 0.0 if reference.exact else ROUNDING
        value, freedom, p_value = chi_squared_test(counts, expected, rounding)
        yield Row(
            what=f"first token, {describe(sampling)}",
            speculation="auto",
            batch=batch,
            tokens=n,
            statistic=f"chi2({freedom})",
            value=value,
            p_value=p_value,
            acceptance_rate=None,
            verdict=_verdict(passed=p_value >= ALPHA / TESTS),
        )


def _most_open(reference: Reference) -> tuple[tuple[int, ...], Tensor]:
    """The prompt whose first token is the least certain, and log p of that token."""
    pairs = [(prompt, reference.log_p(prompt, 1)[0]) for prompt in reference.plan.prompts]
    return max(pairs, key=lambda pair: -float((pair[1].exp() * pair[1]).sum()))


def _acceptance_rate(answers: Sequence[Answer]) -> float | None:
    return acceptance_rate(
        sum(answer.accepted for answer in answers), sum(answer.drafted for answer in answers)
    )


def _verdict(*, passed: bool) -> Verdict:
    return "passed" if passed else "failed"
