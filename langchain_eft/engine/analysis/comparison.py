"""Comparison of a behavior's models with the base along a given answer, for diagnoses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Self

import torch
from torch import Tensor

from langchain_eft.engine.analysis.attribution import normalize
from langchain_eft.engine.analysis.kv_memory import KVMemory
from langchain_eft.engine.analysis.target import Target
from langchain_eft.engine.analysis.term_outputs import Reading, Steps, term_outputs
from langchain_eft.engine.decoding.formula import build_formula
from langchain_eft.engine.decoding.formula_table import terms_in_order
from langchain_eft.engine.decoding.sampling import Sampling, probabilities
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.models.linear import product
from langchain_eft.engine.recipe.schedules import Weight
from langchain_eft.engine.request import SamplingParams

_ROWS = 16
"""Tokens that are compared at once; it bounds the memory of their distributions."""

_PROBABLE = 0.01
"""Tokens with at least this probability count as probable."""


@dataclass(frozen=True)
class ModelComparison:
    """Figures of one answer, one for each of its tokens.

    L is the base, F the tuned model, S its reference. The target is `p = L + w (F - S)` and the draft
    distribution `q = S + w (F - S)`, both normalized. Distances are between next-token distributions, in nats
    unless they are total variations (tv).
    """

    base: list[float]  # log L of the token
    tuned: list[float]  # log F of the token
    reference: list[float]  # log S of the token
    same_first: list[float]  # 1 where L and S have the same most probable token, else 0
    tv_base_reference: list[float]  # TV of L and S
    kl_base_reference: list[float]  # KL(L || S)
    tv_base_tuned: list[float]  # TV of L and F
    tv_tuned_reference: list[float]  # TV of F and S
    kl_tuned_reference: list[float]  # KL(F || S), the size of the delta
    delta: list[float]  # mean of |log F - log S| over tokens that are probable (1 % or more) under F or S
    tv_target_base: list[float]  # TV of p and L
    entropy_target: list[float]  # entropy of p
    entropy_tuned: list[float]  # entropy of F
    # largest probability that one of the three gives to ids that they do not have in common
    masked: list[float]
    end_base: list[float]  # log of the probability of all end tokens together under L
    end_tuned: list[float]  # the same under F
    end_reference: list[float]  # the same under S
    # expected share of accepted draft tokens, `1 - TV(p, q)`, with the sampling parameters applied
    accepted: list[float]

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def compare_on_answer(
    family: ModelFamily,
    memory: KVMemory,
    terms: Sequence[tuple[Term, tuple[int, ...]]],
    weight: Weight,
    answer: tuple[int, ...],
    sampling: SamplingParams,
) -> Steps[ModelComparison]:
    """Compare the base, a tuned model and its reference along an answer.

    Args:
        family: The loaded models.
        memory: Where keys and values are meanwhile.
        terms: The terms of L, F and S, each with the token ids of its prompt, at least one.
        weight: w.
        answer: Token ids, at least one.
        sampling: Temperature and filters for `accepted`; penalties and biases are ignored.
    """
    base, tuned, reference = (term for term, _ in terms)
    formula = build_formula(base, {"": (tuned, reference)}, {"": weight})
    target = Target(family, [formula])
    readings = [Reading(term, prompt, (answer,)) for term, prompt in terms]
    outputs = yield from term_outputs(family, memory, readings)
    parts = []
    for start in range(0, len(answer), _ROWS):
        tokens = answer[start : start + _ROWS]
        steps = range(start, start + len(tokens))
        with torch.inference_mode():
            logits = {
                term: _logits(family, term, [outputs.rows[places[step]] for step in steps])
                for (term, _), (places,) in zip(terms, outputs.places, strict=True)
            }
            of_formula = [logits[term][:, : len(family.vocabulary)] for term in terms_in_order(formula)]
            entry = torch.arange(len(of_formula) * len(steps)).view(-1, len(steps)).t().tolist()
            logp = target.logprobs(torch.cat(of_formula), entry, [0] * len(steps), steps)
            of_models = [logits[term] for term, _ in terms]
            parts.append(compare(of_models, logp, tokens, family.vocabulary, family.end_ids, sampling))
        yield
    return reduce(add, parts)


def _logits(family: ModelFamily, term: Term, outputs: Sequence[Tensor]) -> Tensor:
    """[T, V'] float32 logits of a term's model from T of its outputs."""
    states, head = torch.stack(list(outputs)), family.models[term.model].head
    logits = states if head is None else product(states, head)
    return logits.float().to(family.vocabulary.device)


def compare(
    logits: Sequence[Tensor],
    target: Tensor,
    answer: Sequence[int],
    vocabulary: Tensor,
    end_ids: Collection[int],
    sampling: SamplingParams,
) -> ModelComparison:
    """Compare the models of a behavior along some tokens of an answer.

    Args:
        logits: Logits of L, F and S, each [T, V'] with its own V'.
        target: [T, V] log p.
        answer: T token ids.
        vocabulary: [V] bool, ids that all models have in common.
        end_ids: Tokens that end an answer.
        sampling: Temperature and filters for `accepted`.
    """
    size = len(vocabulary)
    logprobs = (normalize(each[:, :size], vocabulary) for each in logits)
    base, tuned, reference = (each.masked_fill(~vocabulary, -1e4) for each in logprobs)
    target = target.double().masked_fill(~vocabulary, -1e4)
    small = (reference + (target - base)).log_softmax(-1)
    token = torch.tensor(answer, device=vocabulary.device)[:, None]
    ends = torch.tensor(sorted(end_ids), device=vocabulary.device)
    probable = (tuned.maximum(reference) >= torch.tensor(_PROBABLE).log()).double()
    filters = Sampling.of([sampling] * len(answer), [0] * len(answer), vocabulary.device)
    figures = [
        *(each.gather(1, token)[:, 0] for each in (base, tuned, reference)),
        (base.argmax(-1) == reference.argmax(-1)).double(),
        total_variation(base.exp(), reference.exp()),
        divergence(base, reference),
        total_variation(base.exp(), tuned.exp()),
        total_variation(tuned.exp(), reference.exp()),
        divergence(tuned, reference),
        ((tuned - reference).abs() * probable).sum(-1) / probable.sum(-1),
        total_variation(target.exp(), base.exp()),
        entropy(target),
        entropy(tuned),
        torch.stack([_outside(each, vocabulary) for each in logits]).amax(0),
        *(each[:, ends].logsumexp(-1) for each in (base, tuned, reference)),
        1 - total_variation(*(probabilities(each.float(), filters) for each in (target, small))),
    ]
    return ModelComparison(*(figure.tolist() for figure in figures))


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """[T] total variation, half the sum of absolute differences, of two [T, V] tensors of probabilities."""
    return (p - q).abs().sum(-1) / 2


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """[T] KL(p || q) in nats of two [T, V] tensors of log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def entropy(p: Tensor) -> Tensor:
    """[T] entropy in nats of [T, V] log-probabilities."""
    return -(p.exp() * p).sum(-1)


def _outside(logits: Tensor, vocabulary: Tensor) -> Tensor:
    """[T] probability of the ids that the models do not have in common."""
    inside = logits[:, : len(vocabulary)].masked_fill(~vocabulary, -torch.inf).logsumexp(-1)
    return 1 - (inside - logits.logsumexp(-1)).exp()
