"""Log-probabilities of given texts: what a behaviour thinks of an answer that somebody else wrote."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langchain_eft.engine.kv_cache import KVPool
from langchain_eft.engine.linear import product
from langchain_eft.engine.models import CausalModel, Chunk, ModelFamily, Term, pack

_ROWS = 64


@torch.inference_mode()
def outputs_along(family: ModelFamily, term: Term, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """What one term puts out before every token of an answer; `logits_of` makes logits of it, row by row.

    Args:
        family: The loaded models.
        term: Which variant of which model.
        prompt: Token ids before the answer, at least one.
        answer: Token ids of the answer, at least one.

    Returns:
        [len(answer), hidden] where the model has a plain head, else [len(answer), V'], on the model's device.
    """
    model, ids = family.models[term.model], [*prompt, *answer[:-1]]
    batch = pack([Chunk(ids, 0, term.variant, [0])], KVPool(len(ids)), len(ids), model.device)
    return model(batch, [term.variant], torch.arange(len(prompt) - 1, len(ids), device=model.device))


@torch.inference_mode()
def logits_of(model: CausalModel, outputs: Tensor) -> Tensor:
    """[n, V'] float32 logits, of the model's own width, from n of its outputs."""
    return (outputs if model.head is None else product(outputs, model.head)).float()


@torch.inference_mode()
def token_logprobs(family: ModelFamily, term: Term, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """log-probability of every token of an answer, by one term of the formula.

    Args:
        family: The loaded models.
        term: Which variant of which model.
        prompt: Token ids before the answer, at least one.
        answer: Token ids of the answer, at least one.

    Returns:
        [len(answer)] float32, on the CPU.
    """
    model, output = family.models[term.model], outputs_along(family, term, prompt, answer)
    targets, vocabulary = torch.tensor(answer)[:, None].to(output.device), family.vocabulary.to(output.device)
    found = []
    for rows, target in zip(torch.split(output, _ROWS), torch.split(targets, _ROWS), strict=True):
        # Tokens that not all models know take no part, as in decoding.
        allowed = logits_of(model, rows)[:, : len(vocabulary)].masked_fill(~vocabulary, -torch.inf)
        found.append(allowed.log_softmax(-1).gather(1, target)[:, 0])
    return torch.cat(found).cpu()
