"""The layout of a round's tokens: each row's last token and draft tokens, once for every term."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.device_kernels import with_kernel


class TokenLayout(NamedTuple):
    """The tokens of S slots and B rows, n entries for each, one after the other: N = S * B * n.

    Attributes:
        ids: [N] int64 token ids.
        positions: [N] int64 position of each token in its sequence; 0 for padding.
        variants: [N] int64 variant of the model that each token runs through.
        queries: [S * B] int32, how many of the n entries are tokens. They come first; the rest is padding.
        lengths: [S * B] int32, context length, these tokens included; 0 where there are none.
    """

    ids: Tensor
    positions: Tensor
    variants: Tensor
    queries: Tensor
    lengths: Tensor


@with_kernel("rounds.layout_triton:lay_out_kernel")
def lay_out(
    tokens: Tensor,
    start: Tensor,
    prompt_end: Tensor,
    last: Tensor,
    offset: Tensor,
    count: Tensor,
    used: Tensor,
    variant: Tensor,
) -> TokenLayout:
    """Lay out the tokens of every row for every slot.

    Args:
        tokens: [B, n] int64, the same for every slot but for the last one of its prompt.
        start: [S, B] int64, tokens of the prompt that the slot reads.
        prompt_end: [S, B] int64, the last of them.
        last: [S, B] int64, position of each row's last known token.
        offset: [B] int64, position of each row's first token here, counted from `last`.
        count: [B] int64 or bool, how many of the n entries are tokens.
        used: [S, B] bool, whether a row has a term in a slot.
        variant: [S, B] int64, variant of the model that runs that term.
    """
    n = tokens.shape[1]
    step = torch.arange(n, device=tokens.device)
    queries = torch.where(used, count, 0)
    begin = last + offset
    position = begin[..., None] + step
    return TokenLayout(
        ids=torch.where(position == start[..., None] - 1, prompt_end[..., None], tokens).flatten(),
        positions=torch.where(step < queries[..., None], position, 0).flatten(),
        variants=variant.flatten().repeat_interleave(n),
        queries=queries.flatten().int(),
        lengths=torch.where(queries > 0, begin + queries, 0).flatten().int(),
    )
