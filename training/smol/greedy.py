"""Greedy decoding of a weighted sum of models' log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

from .decoder import Decoder, attended_tokens
from .tasks.chat import END_OF_TURN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from .llama import Llama

NO_TOKEN = -1
TOKENS = 768


class Term(NamedTuple):
    """One model of a sum, with its weight."""

    model: Llama
    weight: float


@torch.no_grad()
def greedy_decode(
    terms: Sequence[Term],
    prompts: Sequence[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
) -> list[str]:
    """Answer every prompt with the most likely tokens under the sum.

    Args:
        terms: The models and their weights, such as (base, 1), (tuned, 1), (reference, -1).
        prompts: Token ids of each prompt.
        tokenizer: The family's tokenizer.
        max_new_tokens: How far to decode beyond the longest prompt; shorter prompts, which share
            its last position, have room for more.

    Returns:
        The answers, each up to the end of its turn.
    """
    device = terms[0].model.embed_tokens.weight.device
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    written = _padded(prompts).to(device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    forced = written.clone()
    decoders = [Decoder(term.model, len(prompts), TOKENS) for term in terms]
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    first_free, longest = int(lengths.min()), int(lengths.max())
    for position in range(min(longest + max_new_tokens, TOKENS - 1)):
        total = torch.zeros((), device=device)
        for term, decoder in zip(terms, decoders, strict=True):
            logits = _step(decoder, written[:, position], position)
            if position + 1 >= first_free:
                total = total + term.weight * F.log_softmax(logits.float(), -1)
        wanted = forced[:, position + 1]
        if position + 1 >= first_free:
            free = wanted == NO_TOKEN
            wanted = torch.where(free, total.argmax(-1), wanted)
            done |= free & (wanted == end)
        written[:, position + 1] = wanted
        if bool(done.all()):
            break
    return [
        _answer(row[len(prompt) :].tolist(), tokenizer, end)
        for row, prompt in zip(written, prompts, strict=True)
    ]


def _padded(prompts: Sequence[list[int]]) -> Tensor:
    """Return the prompts as [rows, TOKENS], with `NO_TOKEN` after each."""
    padded = torch.full((len(prompts), TOKENS), NO_TOKEN, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        padded[row, : len(prompt)] = torch.tensor(prompt)
    return padded


def _step(decoder: Decoder, ids: Tensor, position: int) -> Tensor:
    place = torch.tensor([position], device=ids.device)
    return decoder.step(ids, place, attended_tokens(position, TOKENS))


def _answer(ids: list[int], tokenizer: PreTrainedTokenizerBase, end: int) -> str:
    written = [token for token in ids if token != NO_TOKEN]
    text = written[: written.index(end)] if end in written else written
    return str(tokenizer.decode(text))
