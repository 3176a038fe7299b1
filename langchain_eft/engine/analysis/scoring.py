"""Log-probabilities of given answers, and their implicit rewards."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.models.linear import product

_ROWS = 64
"""Tokens whose logits are computed at once; it bounds the memory of logits."""

_TOKENS_PER_FORWARD = 2048
"""Most tokens of several answers in one forward pass."""

_BLOCK = 16
"""Token positions per block of KV memory."""

Answers = Sequence[Sequence[int]]


@torch.inference_mode()
def answer_outputs(
    family: ModelFamily, term: Term, prompt: Sequence[int], answers: Answers
) -> tuple[Tensor, ...]:
    """Outputs of one term that predict the tokens of some answers; `logits_of` turns them into logits.

    The answers are rows of one forward pass. The full blocks of their common prompt are computed once.

    Args:
        family: The loaded models.
        term: Which variant of which model.
        prompt: Token ids before each answer, at least one.
        answers: Token ids of each answer, at least one each.

    Returns:
        For each answer, [len(answer), hidden] if the model's head is a plain matrix, else [len(answer), V'],
        on the model's device.
    """
    model = family.models[term.model]
    num_shared = (len(prompt) - 1) // _BLOCK
    rows = [[*prompt[num_shared * _BLOCK :], *answer[:-1]] for answer in answers]
    ends = list(itertools.accumulate((-(-len(ids) // _BLOCK) for ids in rows), initial=num_shared))
    pool, shared = KVPool(ends[-1] * _BLOCK), list(range(num_shared))

    def forward(chunks: list[Chunk], keep: list[int]) -> Tensor:
        batch = pack(chunks, pool, _BLOCK, model.device)
        return model(batch, [term.variant], torch.tensor(keep).to(model.device))

    if shared:
        forward([Chunk(prompt[: num_shared * _BLOCK], 0, term.variant, shared)], [0])
    tables = [[*shared, *range(start, end)] for start, end in itertools.pairwise(ends)]
    chunks = [
        Chunk(ids, num_shared * _BLOCK, term.variant, table) for ids, table in zip(rows, tables, strict=True)
    ]
    stops = itertools.accumulate(map(len, rows))
    keep = [i for stop, answer in zip(stops, answers, strict=True) for i in range(stop - len(answer), stop)]
    return torch.split(forward(chunks, keep), [len(answer) for answer in answers])


@torch.inference_mode()
def logits_of(model: CausalModel, outputs: Tensor) -> Tensor:
    """[n, V'] float32 logits of a model from n of its outputs."""
    return (outputs if model.head is None else product(outputs, model.head)).float()


@torch.inference_mode()
def token_logprobs(family: ModelFamily, term: Term, prompt: Sequence[int], answers: Answers) -> list[Tensor]:
    """Log-probability of every token of some answers under one term of the formula.

    Args:
        family: The loaded models.
        term: Which variant of which model.
        prompt: Token ids before each answer, at least one.
        answers: Token ids of each answer, at least one each.

    Returns:
        For each answer, [len(answer)] float32, on the CPU.
    """
    model, output = family.models[term.model], torch.cat(answer_outputs(family, term, prompt, answers))
    targets = torch.tensor([token for answer in answers for token in answer])[:, None].to(output.device)
    vocabulary = family.vocabulary.to(output.device)
    logprobs = []
    for rows, target in zip(torch.split(output, _ROWS), torch.split(targets, _ROWS), strict=True):
        # Tokens that some model lacks have probability 0, as in decoding.
        allowed = logits_of(model, rows)[:, : len(vocabulary)].masked_fill(~vocabulary, -torch.inf)
        logprobs.append(allowed.log_softmax(-1).gather(1, target)[:, 0])
    return list(torch.split(torch.cat(logprobs).cpu(), [len(answer) for answer in answers]))


def rewards(
    family: ModelFamily,
    tuned: tuple[Term, Sequence[int]],
    reference: tuple[Term, Sequence[int]],
    answers: Answers,
) -> list[float]:
    """The implicit reward of answers: `sum_t log F(y_t | ...) - log S(y_t | ...)`.

    Args:
        family: The loaded models.
        tuned: The term of F, and the token ids of its prompt.
        reference: The term of S, and the token ids of its prompt.
        answers: Token ids of each answer, at least one each. They run in one forward pass per model.

    Returns:
        One reward for each answer, in nats.
    """
    of_tuned, of_reference = (token_logprobs(family, *pair, answers) for pair in (tuned, reference))
    return [float((f - s).sum()) for f, s in zip(of_tuned, of_reference, strict=True)]


def forward_batches(answers: Answers) -> list[list[Sequence[int]]]:
    """Divide answers into forward passes with few enough tokens; a longer answer gets a pass of its own."""
    batches: list[list[Sequence[int]]] = []
    for answer in answers:
        if not batches or sum(map(len, [*batches[-1], answer])) > _TOKENS_PER_FORWARD:
            batches.append([])
        batches[-1].append(answer)
    return batches
