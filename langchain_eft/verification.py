"""The self-test of a recipe: does the engine say what the formula says, on this machine, with these weights?

Greedy answers are compared token by token, and sampled ones by tests of hypotheses, with full forwards of the
unmodified models: no cache, no batch, no drafts. The formula and the filters are written out again here, so
that a slip in the engine's own cannot hide.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import cycle, islice, product
from typing import Any, Literal

import numpy as np
import torch
from langchain_core.messages import HumanMessage
from scipy import stats
from torch import Tensor

from langchain_eft.behaviors import Mixture, Recipe
from langchain_eft.contexts import read_conversation, read_text
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.models import ModelFamily, Term, own_logits
from langchain_eft.engine.request import (
    Event,
    Failed,
    Finished,
    Generation,
    GenerationRequest,
    SamplingParams,
    Speculation,
    TextDelta,
)
from langchain_eft.schedules import weight_at

PROMPTS = (
    "What is the capital of Japan?",
    "Write a short poem about the rain.",
    "Explain to a child why the sky is blue.",
    "How do I bake bread at home?",
    "Tell me about whales.",
    "Write a Python function that adds two numbers.",
)
BATCHES = (1, 8)
GREEDY_SPECULATIONS: tuple[Speculation, ...] = ("off", "auto", 1, 2, 4, 8)
SAMPLED_SPECULATIONS: tuple[Speculation, ...] = ("off", "auto", 4)
SAMPLED = (SamplingParams(temperature=1.0, seed=0), SamplingParams(temperature=0.7, top_p=0.9, seed=0))
FIRST_TOKENS = (*SAMPLED, SamplingParams(temperature=1.3, top_k=40, min_p=0.02, seed=0))
FIRST_TOKENS_PER_SAMPLE = 50

ALPHA = 1e-4
"""Chance that a run calls a right engine wrong, as far as sums of many tokens are normally distributed."""

TESTS = len(SAMPLED) * len(SAMPLED_SPECULATIONS) * len(BATCHES) + len(FIRST_TOKENS)
"""Tests of hypotheses in one run, among which `ALPHA` is divided (Bonferroni)."""

ROUNDING = 0.1
"""Relative error that low precision may leave in a probability: bfloat16 steps by 1/8 at logits of 16."""

_NEVER = -1e9
"""Log-probability of what is never said: finite, so that 0 times it is 0."""

Verdict = Literal["passed", "failed", "not compared bit for bit"]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is verified, and how thoroughly.

    Attributes:
        prompts: Prompts in token ids, at least one, and by name what some models read instead of each.
        mixture: The mixture that decodes.
        upscale_strength: beta.
        upscale_top_p: Nucleus for conservative decoding.
        samples: Sampled answers per row.
        max_tokens: Longest answer.
        seed: Same seed, same samples.
    """

    prompts: Mapping[tuple[int, ...], Mapping[str, tuple[int, ...]]]
    mixture: Mixture
    upscale_strength: float = 1.0
    upscale_top_p: float = 1.0
    samples: int = 8
    max_tokens: int = 12
    seed: int = 0

    def request(
        self, prompt: Sequence[int], sampling: SamplingParams, speculation: Speculation, max_tokens: int
    ) -> GenerationRequest:
        """One completion of this plan's mixture."""
        return GenerationRequest(
            prompt_ids=tuple(prompt),
            contexts=dict(self.prompts.get(tuple(prompt), {})),
            mixture=self.mixture,
            upscale_strength=self.upscale_strength,
            upscale_top_p=self.upscale_top_p,
            sampling=sampling,
            speculation=speculation,
            max_tokens=max_tokens,
        )


@dataclass(frozen=True)
class Row:
    """One comparison of the engine with full forwards.

    Attributes:
        what: What was compared.
        speculation: Draft length.
        batch: Requests decoded together.
        tokens: Tokens compared.
        statistic: What `value` is: `equal` (share of the tokens), `z`, or `chi2` with its degrees of freedom.
        value: The statistic.
        p_value: Chance of a value at least as extreme if the engine is right; None where nothing is random.
        acceptance_rate: Share of the guesses that were right; None where none were made.
        verdict: What follows.
    """

    what: str
    speculation: Speculation
    batch: int
    tokens: int
    statistic: str
    value: float
    p_value: float | None
    acceptance_rate: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Report:
    """All rows, and whether none of them failed.

    Attributes:
        rows: The comparisons.
        exact: Whether the weights are float32, so that greedy answers have to be equal to the token.
        seconds: What it took.
        alpha: Chance that a right engine fails.
        tests: Tests of hypotheses among which `alpha` is divided.
    """

    rows: tuple[Row, ...]
    exact: bool
    seconds: float
    alpha: float = ALPHA
    tests: int = TESTS

    @property
    def least_p_value(self) -> float:
        """What a test fails below."""
        return self.alpha / self.tests

    @property
    def passed(self) -> bool:
        """Whether the engine says what the formula says, as far as could be seen."""
        return all(row.verdict != "failed" for row in self.rows)

    @property
    def tokens(self) -> int:
        """Tokens compared in all rows."""
        return sum(row.tokens for row in self.rows)


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
    reference = Reference(engine._family, plan)
    rows = [
        *greedy_rows(engine, reference, progress),
        *sampling_rows(engine, reference, progress),
        *first_token_rows(engine, reference, progress),
    ]
    return Report(tuple(rows), reference.exact, round(time.perf_counter() - started, 1))


def encode_prompts(
    tokenizer: Any, recipe: Recipe, mixture: Mixture, texts: Sequence[str]
) -> dict[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """Texts as a user's messages in the chat template, or as they are where there is none.

    Returns:
        Token ids of each prompt, and by name what some of the mixture's models read instead.

    Raises:
        RecipeError: A mixture that the recipe cannot decode.
        RequestError: A behaviour takes away what some text does not have.
    """
    if tokenizer.chat_template:
        return dict(read_conversation(tokenizer, recipe, mixture, [HumanMessage(text)]) for text in texts)
    return dict(read_text(tokenizer, recipe, mixture, text) for text in texts)


# What the formula says


@dataclass(frozen=True)
class Reference:
    """Log-probabilities by the formula's definition, from full forwards in float64.

    Attributes:
        family: The engine's models.
        plan: The mixture and its settings.
    """

    family: ModelFamily
    plan: Plan

    @property
    def exact(self) -> bool:
        """Whether the weights are float32, where rounding decides next to nothing."""
        return all(next(m.module.parameters()).dtype == torch.float32 for m in self.family.models)

    @cached_property
    def _pairs(self) -> dict[str, tuple[Term, Term]]:
        return {name: self.family.behaviors[name] for name in self.plan.mixture.active()}

    @property
    def _references(self) -> list[Term]:
        """The terms whose mean is S, none where up-scaling needs no S.

        The engine refuses `upscale_strength` and `upscale_top_p` where there are several.
        """
        pairs, base = self._pairs or self.family.behaviors, self.family.base
        own = dict.fromkeys(replace(reference, context=base.context) for _, reference in pairs.values())
        own.pop(base, None)
        if self.plan.upscale_strength != 1 or self.plan.upscale_top_p < 1:
            return list(own)[:1] or [base]
        return list(own) if self._pairs and self.family.unscaled is not None else []

    def log_p(self, ids: Sequence[int], last: int) -> Tensor:
        """Log p of the first `last` tokens of an answer, normalised.

        Args:
            ids: The prompt and all of the answer but its last token.
            last: Tokens of the answer.

        Returns:
            [last, V] float64 over the common vocabulary.
        """
        prompt, answer = tuple(ids[: len(ids) - last + 1]), ids[len(ids) - last + 1 :]
        texts = {"": prompt, **self.plan.prompts.get(prompt, {})}

        @cache
        def of(term: Term) -> Tensor:
            text = torch.tensor([[*texts[term.context], *answer]], device=self.family.vocabulary.device)
            logits = own_logits(self.family.models[term.model], text, term.variant)
            known = logits[-last:, : len(self.family.vocabulary)].double()
            return known.masked_fill(~self.family.vocabulary, _NEVER).log_softmax(-1)

        plan = self.plan
        large = of(self.family.base)
        weights = plan.mixture.active()
        delta = torch.zeros_like(large)
        for name, (tuned, reference) in self._pairs.items():
            weight = [weight_at(weights[name], position) for position in range(last)]
            delta += delta.new_tensor(weight)[:, None] * (of(tuned) - of(reference))
        references = self._references
        if not references:
            total = large + delta
        else:
            small = torch.stack(list(map(of, references))).mean(0)
            mixture = (small + delta).log_softmax(-1)
            upscale = plan.upscale_strength * (large - small)
            if self._pairs and self.family.unscaled is not None:
                upscale = upscale.masked_fill(self.family.unscaled, 0.0)
            total = mixture + torch.where(nucleus(mixture, plan.upscale_top_p), upscale, 0.0)
        return total.masked_fill(~self.family.vocabulary, _NEVER).log_softmax(-1)

    def log_p_of(self, answer: Answer) -> Tensor:
        """Log p at every position of an answer, [tokens, V]."""
        return self.log_p((*answer.prompt, *answer.tokens[:-1]), len(answer.tokens))


def nucleus(log_p: Tensor, top_p: float) -> Tensor:
    """The smallest set of tokens with probability `top_p`, [..., V] bool; all of them for 1."""
    if top_p == 1:
        return torch.ones_like(log_p, dtype=torch.bool)
    ordered, order = log_p.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    return torch.zeros_like(log_p, dtype=torch.bool).scatter(-1, order, before < top_p)


def distribution(log_p: Tensor, params: SamplingParams) -> Tensor:
    """What is drawn from: temperature, then top-k, top-p and min-p, [..., V] float64."""
    log_p = (log_p / params.temperature).log_softmax(-1)
    if params.top_k:
        smallest = log_p.topk(min(params.top_k, log_p.shape[-1])).values[..., -1:]
        log_p = log_p.masked_fill(log_p < smallest, _NEVER).log_softmax(-1)
    log_p = log_p.masked_fill(~nucleus(log_p, params.top_p), _NEVER)
    if params.min_p:
        floor = log_p.amax(-1, keepdim=True) + math.log(params.min_p)
        log_p = log_p.masked_fill(log_p < floor, _NEVER)
    return log_p.softmax(-1)


# What the engine says


@dataclass
class Answer:
    """What the engine has decoded for a prompt.

    Attributes:
        prompt: Its prompt in token ids.
        tokens: Token ids, the end token included.
        drafted: Tokens guessed ahead.
        accepted: Guesses that were right.
    """

    prompt: tuple[int, ...]
    tokens: list[int] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0


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


def acceptance_rate(answers: Sequence[Answer]) -> float | None:
    """Share of the guesses that were right; None where none were made."""
    drafted = sum(answer.drafted for answer in answers)
    return sum(answer.accepted for answer in answers) / drafted if drafted else None


# The comparisons


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
            acceptance_rate=acceptance_rate(answers),
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
            acceptance_rate=acceptance_rate(answers),
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


def describe(sampling: SamplingParams) -> str:
    """The settings of a sampler that matter here, in words."""
    filters = {
        "top_p": sampling.top_p < 1, "top_k": sampling.top_k > 0, "min_p": sampling.min_p > 0
    }  # fmt: skip
    active = [f"{name} {getattr(sampling, name):g}" for name, on in filters.items() if on]
    return ", ".join([f"temperature {sampling.temperature:g}", *active])


def _verdict(*, passed: bool) -> Verdict:
    return "passed" if passed else "failed"


# The tests of hypotheses


def surprise(log_p: Tensor, tokens: Sequence[int], sampling: SamplingParams) -> tuple[float, float]:
    """How much more probable the tokens are than tokens of p are on average.

    Tokens are scored before they are filtered, which changes no difference among those that the filters keep
    and leaves a finite score to one that rounding moved across the edge of a filter.

    Args:
        log_p: [T, V] what the tokens were drawn from, before temperature and filters.
        tokens: T tokens.
        sampling: Temperature and filters.

    Returns:
        Sum over t of log p(y_t) + H(p_t), and its variance if y_t is drawn from p_t.
    """
    p, score = distribution(log_p, sampling), log_p / sampling.temperature
    said = score.gather(-1, torch.tensor(tokens, device=score.device)[:, None])[:, 0]
    mean = (p * score).sum(-1)
    variance = (p * (score - mean[:, None]) ** 2).sum(-1)
    return float((said - mean).sum()), float(variance.sum())


def z_test(sums: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Test that independent sums have mean 0.

    The tokens of an answer are a martingale: whatever was said before, each deviates by 0 on average, so
    their variances add up too.

    Args:
        sums: Sums and their variances.

    Returns:
        z and the two-sided p-value; 0 and 1 where nothing could vary.
    """
    total, variance = (sum(column) for column in zip(*sums, strict=True))
    z = total / math.sqrt(variance) if variance else 0.0
    return z, float(2 * stats.norm.sf(abs(z)))


def chi_squared_test(
    counts: Tensor, expected: Tensor, rounding: float = 0.0, least: float = 5.0
) -> tuple[float, int, float]:
    """Test that counts come as often as expected; rare outcomes share one bin.

    Args:
        counts: [V] how often each outcome came.
        expected: [V] float64 how often it should, with the same sum.
        rounding: Relative error of the expected counts that is no fault.
        least: Smallest expected count of a bin.

    Returns:
        Pearson's statistic, its degrees of freedom, and a bound on the p-value, exact without rounding.
    """
    order = expected.argsort(descending=True)
    common, rare = int((expected >= least).sum()), float(expected[expected < least].sum())
    # Rare outcomes that are too few for a bin of their own fall into the last common one.
    starts = np.arange(max(common + (rare >= least), 1))
    observed, predicted = (
        np.add.reduceat(each[order].double().numpy(), starts) for each in (counts, expected)
    )
    freedom = len(starts) - 1
    if not freedom:
        return 0.0, 0, 1.0
    value = stats.chisquare(observed, predicted).statistic
    # The statistic is the squared length of a vector, and rounding lengthens that by its own length at most.
    beyond = max(math.sqrt(value) - rounding * math.sqrt(predicted.sum()), 0) ** 2
    return float(value), freedom, float(stats.chi2.sf(beyond, freedom))
