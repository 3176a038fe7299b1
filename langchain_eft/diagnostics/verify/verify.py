"""Compare the engine with full forward passes: greedy tokens must be equal, and samples must follow p."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import cycle, islice, product

import torch
from torch import Tensor

from langchain_eft.diagnostics.decoded_answer import DecodedAnswer, decode_in_batches
from langchain_eft.diagnostics.verify.plan import (
    ALPHA,
    BATCH_SIZES,
    FIRST_TOKEN_SAMPLINGS,
    FIRST_TOKENS_PER_SAMPLE,
    GREEDY_SPECULATIONS,
    ROUNDING,
    SAMPLED_SPECULATIONS,
    SAMPLINGS,
    TESTS,
    VerificationPlan,
    describe,
)
from langchain_eft.diagnostics.verify.reference import Reference, distribution
from langchain_eft.diagnostics.verify.report import Check, CheckOutcome, VerificationReport
from langchain_eft.diagnostics.verify.statistics import chi_squared_test, log_p_excess, z_test
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.events import acceptance_rate
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.request import SamplingParams


def verify(engine: Engine, plan: VerificationPlan, progress: Progress) -> VerificationReport:
    """Compare the engine with full forward passes of its own models.

    The engine must have no other users during this time, because the full forward passes run on its models in
    the caller's thread.

    Args:
        engine: An open engine.
        plan: The prompts and settings.
        progress: Receives a short message for each check.

    Raises:
        EngineError: The engine refuses a request, or fails.
    """
    started = time.perf_counter()
    reference = Reference(engine.family, plan)
    checks = [
        *greedy_checks(engine, reference, progress),
        *sampling_checks(engine, reference, progress),
        *first_token_checks(engine, reference, progress),
    ]
    return VerificationReport(tuple(checks), reference.exact, round(time.perf_counter() - started, 1))


def greedy_checks(engine: Engine, reference: Reference, progress: Progress) -> Iterator[Check]:
    """Compare greedy answers at each draft length, alone and in a batch, with the most probable tokens."""
    plan = reference.plan

    @cache
    def most_probable(prompt: tuple[int, ...], answer: tuple[int, ...]) -> list[int]:
        """The most probable token at each position of an answer, given the answer's tokens before it."""
        tokens: list[int] = reference.log_p(prompt, answer[:-1]).argmax(-1).tolist()
        return tokens

    for speculation, batch_size in product(GREEDY_SPECULATIONS, BATCH_SIZES):
        progress(f"Greedy answers, speculation {speculation}, batch {batch_size}")
        greedy = SamplingParams(temperature=0, seed=plan.seed)
        prompts = islice(cycle(plan.prompts), max(batch_size, len(plan.prompts)))
        requests = [plan.request(prompt, greedy, speculation, plan.max_tokens) for prompt in prompts]
        answers = decode_in_batches(engine, requests, batch_size)
        pairs = [
            pair
            for answer in answers
            for pair in zip(
                answer.tokens, most_probable(answer.request.prompt_ids, answer.tokens), strict=True
            )
        ]
        num_equal = sum(token == expected for token, expected in pairs)
        yield Check(
            what="greedy",
            speculation=speculation,
            batch_size=batch_size,
            tokens=len(pairs),
            statistic="equal",
            value=num_equal / len(pairs),
            p_value=None,
            acceptance_rate=_acceptance_rate(answers),
            outcome=_outcome(passed=num_equal == len(pairs))
            if reference.exact
            else "not compared bit for bit",
        )


def sampling_checks(engine: Engine, reference: Reference, progress: Progress) -> Iterator[Check]:
    """Test whether the tokens of sampled answers are as probable, on average, as tokens drawn from p."""
    plan = reference.plan
    cases = product(SAMPLINGS, SAMPLED_SPECULATIONS, BATCH_SIZES)
    for number, (sampling, speculation, batch_size) in enumerate(cases):
        progress(f"Samples, {describe(sampling)}, speculation {speculation}, batch {batch_size}")
        requests = [
            plan.request(
                prompt,
                sampling.model_copy(update={"seed": plan.seed + number * plan.samples + i}),
                speculation,
                plan.max_tokens,
            )
            for i, prompt in enumerate(islice(cycle(plan.prompts), plan.samples))
        ]
        answers = decode_in_batches(engine, requests, batch_size)
        z, p_value = z_test(
            [
                log_p_excess(
                    reference.log_p(answer.request.prompt_ids, answer.tokens[:-1]), answer.tokens, sampling
                )
                for answer in answers
            ]
        )
        yield Check(
            what=describe(sampling),
            speculation=speculation,
            batch_size=batch_size,
            tokens=sum(len(answer.tokens) for answer in answers),
            statistic="z",
            value=z,
            p_value=p_value,
            acceptance_rate=_acceptance_rate(answers),
            outcome=_outcome(passed=p_value >= ALPHA / TESTS),
        )


def first_token_checks(engine: Engine, reference: Reference, progress: Progress) -> Iterator[Check]:
    """Test whether the first tokens of many seeds after one prompt have the frequencies that p gives them."""
    plan, batch_size = reference.plan, engine.config.max_batch_size
    prompt, log_p = _least_certain_prompt(reference)
    n = FIRST_TOKENS_PER_SAMPLE * plan.samples
    for number, sampling in enumerate(FIRST_TOKEN_SAMPLINGS):
        progress(f"{n} first tokens, {describe(sampling)}")
        seeds = range(plan.seed + number * n, plan.seed + (number + 1) * n)
        requests = [
            plan.request(prompt, sampling.model_copy(update={"seed": seed}), "auto", 1) for seed in seeds
        ]
        answers = decode_in_batches(engine, requests, batch_size)
        first_tokens = torch.tensor([answer.tokens[0] for answer in answers])
        expected = distribution(log_p, sampling).cpu() * n
        counts = first_tokens.bincount(minlength=len(expected))
        rounding = 0.0 if reference.exact else ROUNDING
        value, degrees_of_freedom, p_value = chi_squared_test(counts, expected, rounding)
        yield Check(
            what=f"first token, {describe(sampling)}",
            speculation="auto",
            batch_size=batch_size,
            tokens=n,
            statistic=f"chi2({degrees_of_freedom})",
            value=value,
            p_value=p_value,
            acceptance_rate=None,
            outcome=_outcome(passed=p_value >= ALPHA / TESTS),
        )


def _least_certain_prompt(reference: Reference) -> tuple[tuple[int, ...], Tensor]:
    """The prompt whose first token has the highest entropy, and log p of that token."""
    pairs = [(prompt, reference.log_p(prompt, ())[0]) for prompt in reference.plan.prompts]
    return max(pairs, key=lambda pair: -float((pair[1].exp() * pair[1]).sum()))


def _acceptance_rate(answers: Sequence[DecodedAnswer]) -> float | None:
    return acceptance_rate(
        sum(answer.end.accepted_tokens for answer in answers),
        sum(answer.end.drafted_tokens for answer in answers),
    )


def _outcome(*, passed: bool) -> CheckOutcome:
    return "passed" if passed else "failed"
