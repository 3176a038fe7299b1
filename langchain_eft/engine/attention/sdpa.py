"""Attention of one row, or of several rows with equal shapes, in torch.

On a CPU in float32, the result of a query is the same bit for bit, whatever is computed beside it. So a seed
gives the same text for every draft length, chunk of a prompt and state of the prefix cache. Two things make
it so. Sums over keys run block by block, and the blocks begin at fixed positions: keys that follow a query
add exact zeros. And no product has fewer rows than those for which BLAS has kernels of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

KEY_BLOCK = 128
"""Keys that are summed at once."""

QUERY_TILE = 64
"""Most queries of a prompt that attend at once. It bounds the memory of their scores."""

MIN_ROWS = 4
"""Products of fewer rows round in other ways."""

_MIN_ROWS_ALONE = 64
"""A single product of fewer rows may be divided among threads, each of which gets too few rows."""


def padded_length(length: int) -> int:
    """The number of keys that a context of some length is padded to."""
    return -(-length // KEY_BLOCK) * KEY_BLOCK


def causal_bias(queries: int, lengths: Sequence[int], window: int | None, device: torch.device) -> Tensor:
    """What is added to scores so that the last queries of some rows see what they may.

    Args:
        queries: Q, number of queries of each row; they have the last positions.
        lengths: Number of keys of each of R rows, padding not counted.
        window: Positions that a query attends to, its own included, or None.
        device: Device of the result.

    Returns:
        [R, Q, T] float32, 0 where a query attends and -inf elsewhere. T is the padded length of the longest.
    """
    last = torch.tensor(lengths, device=device)[:, None, None]
    query = last - torch.arange(queries, 0, -1, device=device)[:, None]
    key = torch.arange(padded_length(max(lengths)), device=device)
    visible = key <= query
    if window is not None:
        visible &= key > query - window
    return torch.zeros(visible.shape, device=device).masked_fill_(~visible, float("-inf"))


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Grouped-query attention of one row, or of several rows with equal shapes.

    Args:
        query: [..., heads, Q, dim].
        keys: [..., kv_heads, T, dim]. T is a multiple of `KEY_BLOCK`.
        values: [..., kv_heads, T, value_dim].
        bias: [..., Q, T] float32, added to the scores: -inf where a query does not attend.
        scaling: Factor on the scores.
        softcap: Bound on the scores (Gemma 2), or None.
        sinks: [heads] learned sink logits (gpt-oss), or None.

    Returns:
        [..., heads, Q, value_dim].
    """
    *lead, heads, num_queries, dim = query.shape
    kv_heads, num_keys = keys.shape[-3:-1]
    groups = heads // kv_heads
    padded = max(num_queries, -(-MIN_ROWS // groups))  # the results of further queries are dropped
    rows = groups * padded
    if num_queries == 1:
        query = query.expand(*lead, heads, padded, dim)  # quicker than padding
    elif padded > num_queries:
        query = F.pad(query, (0, 0, 0, padded - num_queries))
    query = (query * scaling).reshape(-1, rows, dim)
    keys, values = (x.reshape(-1, num_keys, x.shape[-1]) for x in (keys, values))
    count = len(keys)
    if count == 1 and rows < _MIN_ROWS_ALONE:
        query, keys, values = (x.expand(2, -1, -1) for x in (query, keys, values))
    scores = torch.bmm(query, keys.transpose(1, 2))[:count].float()
    if softcap is not None:
        scores.div_(softcap).tanh_().mul_(softcap)
    of_queries = scores.view(*lead, kv_heads, groups, padded, num_keys)[..., :num_queries, :]
    of_queries.add_(bias[..., None, None, :, :])
    peak = scores.amax(-1, keepdim=True)
    if sinks is not None:
        sink = sinks.float().view(kv_heads, groups, 1).expand(*lead, -1, -1, padded).reshape(-1, rows, 1)
        peak = torch.maximum(peak, sink)
    weights = scores.sub_(peak).exp_().view(count, rows, -1, KEY_BLOCK).transpose(1, 2).contiguous()
    total = _added_up(weights.sum(-1))[..., None]
    if sinks is not None:
        total = total + (sink - peak).exp()
    blocks = weights.to(values.dtype).expand(len(values), -1, -1, -1).flatten(0, 1)
    weighted = torch.bmm(blocks, values.reshape(len(blocks), KEY_BLOCK, -1)).float()
    summed = _added_up(weighted.view(len(values), -1, rows, weighted.shape[-1])[:count])
    out = (summed / total).to(query.dtype).view(*lead, heads, padded, -1)
    return out[..., :num_queries, :]


def _added_up(blocks: Tensor) -> Tensor:
    """[B, ...] sums of [B, n, ...] over blocks, one block after another."""
    return blocks[:, 0] if blocks.shape[1] == 1 else blocks.cumsum(1)[:, -1]
