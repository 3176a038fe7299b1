"""Log-probabilities of given texts: what a behaviour thinks of an answer that somebody else wrote."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langchain_eft.engine.kv_cache import KVPool
from langchain_eft.engine.linear import product
from langchain_eft.engine.models import Chunk, ModelFamily, Term, pack

_ROWS = 64


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
    model = family.models[term.model]
    device, vocabulary = model.device, family.vocabulary.to(model.device)
    ids = [*prompt, *answer[:-1]]
    batch = pack([Chunk(ids, 0, term.variant, [0])], KVPool(len(ids)), len(ids), device)
    keep = torch.arange(len(prompt) - 1, len(ids), device=device)
    output = model(batch, [term.variant], keep)
    targets = torch.tensor(answer, device=device)[:, None]
    found = []
    for rows, target in zip(torch.split(output, _ROWS), torch.split(targets, _ROWS), strict=True):
        logits = rows if model.head is None else product(rows, model.head)
        # Tokens that not all models know take no part, as in decoding.
        allowed = logits[:, : len(vocabulary)].float().masked_fill(~vocabulary, float("-inf"))
        found.append(allowed.log_softmax(-1).gather(1, target)[:, 0])
    return torch.cat(found).cpu()
