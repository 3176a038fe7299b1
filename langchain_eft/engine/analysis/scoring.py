"""Log-probabilities of given texts: what a behaviour thinks of an answer that somebody else wrote."""

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
_BLOCK = 16
"""Positions per block of the memory that answers share."""

Answers = Sequence[Sequence[int]]


@torch.inference_mode()
def outputs_along(
    family: ModelFamily, term: Term, prompt: Sequence[int], answers: Answers
) -> tuple[Tensor, ...]:
    """What one term puts out before every token of some answers; `logits_of` makes logits of it, row by row.

    The answers are rows of one forward. What they have in common, the prompt, is read once for all of them,
    but for its last block, which holds tokens of theirs too.

    Args:
        family: The loaded models.
        term: Which variant of which model.
        prompt: Token ids before each answer, at least one.
        answers: Token ids of each answer, at least one each.

    Returns:
        For each answer, [len(answer), hidden] where the model has a plain head, else [len(answer), V'], on
        the model's device.
    """
    model = family.models[term.model]
    shared = (len(prompt) - 1) // _BLOCK
    own = [[*prompt[shared * _BLOCK :], *answer[:-1]] for answer in answers]
    ends = list(itertools.accumulate((-(-len(ids) // _BLOCK) for ids in own), initial=shared))
    pool, common = KVPool(ends[-1] * _BLOCK), list(range(shared))

    def forward(chunks: list[Chunk], keep: list[int]) -> Tensor:
        batch = pack(chunks, pool, _BLOCK, model.device)
        return model(batch, [term.variant], torch.tensor(keep).to(model.device))

    if shared:
        forward([Chunk(prompt[: shared * _BLOCK], 0, term.variant, common)], [0])
    tables = [[*common, *range(start, end)] for start, end in itertools.pairwise(ends)]
    chunks = [
        Chunk(ids, shared * _BLOCK, term.variant, table) for ids, table in zip(own, tables, strict=True)
    ]
    stops = itertools.accumulate(map(len, own))
    keep = [i for stop, answer in zip(stops, answers, strict=True) for i in range(stop - len(answer), stop)]
    return torch.split(forward(chunks, keep), [len(answer) for answer in answers])


@torch.inference_mode()
def logits_of(model: CausalModel, outputs: Tensor) -> Tensor:
    """[n, V'] float32 logits, of the model's own width, from n of its outputs."""
    return (outputs if model.head is None else product(outputs, model.head)).float()


@torch.inference_mode()
def token_logprobs(family: ModelFamily, term: Term, prompt: Sequence[int], answers: Answers) -> list[Tensor]:
    """log-probability of every token of some answers, by one term of the formula.

    Args:
        family: The loaded models.
        term: Which variant of which model.
        prompt: Token ids before each answer, at least one.
        answers: Token ids of each answer, at least one each.

    Returns:
        For each answer, [len(answer)] float32, on the CPU.
    """
    model, output = family.models[term.model], torch.cat(outputs_along(family, term, prompt, answers))
    targets = torch.tensor([token for answer in answers for token in answer])[:, None].to(output.device)
    vocabulary = family.vocabulary.to(output.device)
    found = []
    for rows, target in zip(torch.split(output, _ROWS), torch.split(targets, _ROWS), strict=True):
        # Tokens that not all models know take no part, as in decoding.
        allowed = logits_of(model, rows)[:, : len(vocabulary)].masked_fill(~vocabulary, -torch.inf)
        found.append(allowed.log_softmax(-1).gather(1, target)[:, 0])
    return list(torch.split(torch.cat(found).cpu(), [len(answer) for answer in answers]))
