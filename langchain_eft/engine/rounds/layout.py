"""Where the tokens of a round sit: each row's last token and guesses, once for every term that runs them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TokenLayout(NamedTuple):
    """The tokens of S slots and B rows, n places each, one after the other: N = S * B * n.

    Attributes:
        ids: [N] int64 token ids.
        positions: [N] int64; 0 for padding.
        variants: [N] int64, which variant of the model each token runs through.
        queries: [S * B] int32, how many of a row's places are real; they come first.
        lengths: [S * B] int32, context length including them; 0 without any.
    """

    ids: Tensor
    positions: Tensor
    variants: Tensor
    queries: Tensor
    lengths: Tensor


def lay_out(
    tokens: Tensor, first: Tensor, offset: Tensor, count: Tensor, used: Tensor, variant: Tensor
) -> TokenLayout:
    """Seat tokens.

    Args:
        tokens: [B, n] int64, the same for every slot.
        first: [S, B] int64, position of each row's last known token.
        offset: [B] int64, how far behind it the tokens begin.
        count: [B] int64 or bool, how many of a row's tokens are real.
        used: [S, B] bool, which rows have a term in a slot.
        variant: [S, B] int64.
    """
    slots, n = len(used), tokens.shape[1]
    step = torch.arange(n, device=tokens.device)
    queries = torch.where(used, count, 0)
    begin = first + offset
    positions = torch.where(step < queries[..., None], begin[..., None] + step, 0)
    return TokenLayout(
        ids=tokens.expand(slots, -1, -1).flatten(),
        positions=positions.flatten(),
        variants=variant.flatten().repeat_interleave(n),
        queries=queries.flatten().int(),
        lengths=torch.where(queries > 0, begin + queries, 0).flatten().int(),
    )
