"""Attention of one row, or of several rows with equal shapes, in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_mask(queries: int, length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which keys the last queries of a row attend to.

    Args:
        queries: Q, number of queries; they have the last positions.
        length: T, number of keys.
        window: Positions that a query attends to, its own included, or None.
        device: Device of the mask.

    Returns:
        [Q, T] bool, or None if every query attends to all keys.
    """
    if queries == 1 and (window is None or window >= length):
        return None
    query = torch.arange(length - queries, length, device=device)[:, None]
    key = torch.arange(length, device=device)[None]
    mask = key <= query
    return mask if window is None else mask & (key > query - window)


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Grouped-query attention of one row, or of several rows with equal shapes.

    Args:
        query: [..., heads, Q, dim].
        keys: [..., kv_heads, T, dim].
        values: [..., kv_heads, T, value_dim].
        mask: [..., Q, T] bool, True where a query attends, or None.
        scaling: Factor on the scores.
        softcap: Bound on the scores (Gemma 2), or None.
        sinks: [heads] learned sink logits (gpt-oss), or None.

    Returns:
        [..., heads, Q, value_dim].
    """
    mask = None if mask is None else mask.unsqueeze(-3)
    if softcap is None and sinks is None:
        single = query.dim() == 3
        q, k, v = (x[None] if single else x for x in (query, keys, values))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=True)
        return out[0] if single else out
    groups = query.shape[-3] // keys.shape[-3]
    scores = query @ keys.repeat_interleave(groups, -3).transpose(-1, -2) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        column = sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)[..., : keys.shape[-2]]
    return weights @ values.repeat_interleave(groups, -3)
