"""Attention over paged keys and values in torch: it copies every whole context.

It is the definition of the kernels, and it runs where none of them does. Shapes follow the rows' bounds and
not their values, so nothing is read back to the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.attention.sdpa import QUERY_TILE, attend, padded_length


def attend_gathered(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    memory: Tensor,
    groups: Sequence[PagedRows],
    out: Tensor,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> None:
    """Store the new keys and values of a packed batch, then attend.

    Args:
        query: [N, heads, dim], the new tokens of all rows, one row after the other.
        keys: [N, kv_heads, dim], keys of the new tokens.
        values: [N, kv_heads, value_dim], values of the new tokens.
        memory: [slots, kv_heads, dim + value_dim]; the last slot takes the keys and values of padding.
        groups: The rows.
        out: [N, heads, value_dim], contiguous; takes the results. Tokens outside all rows are left unchanged.
        scaling: Factor on the scores.
        sliding_window: Positions that a query attends to, its own included, or None.
        softcap: Bound on the scores, or None.
        sinks: [heads] extra logits in the denominator, or None.
    """
    new = torch.cat([keys, values], -1)
    for rows in groups:  # rows may read what others store
        token, position, live = _queries(rows, len(query), range(rows.max_queries))
        slots = _slots(rows, position.clamp(0, rows.max_length - 1)).masked_fill(~live, len(memory) - 1)
        memory.index_copy_(0, slots.flatten(), new[token.flatten()])
    for rows in groups:
        at = torch.arange(padded_length(rows.max_length), device=query.device)
        lengths = rows.lengths.long()[:, None]
        context = memory[_slots(rows, at.clamp(max=rows.max_length - 1).expand(len(lengths), -1))]
        # A weight of 0 does not silence a NaN that another request has left in memory.
        context = context.masked_fill((at >= lengths)[..., None, None], 0).transpose(1, 2)
        seen_keys, seen_values = torch.split(context, [keys.shape[-1], values.shape[-1]], -1)
        for first in range(0, rows.max_queries, QUERY_TILE):
            tile = range(first, min(first + QUERY_TILE, rows.max_queries))
            token, position, live = _queries(rows, len(query), tile)
            visible = at <= position[..., None]
            if sliding_window is not None:
                visible = visible & (at > position[..., None] - sliding_window)
            visible |= ~live[..., None]  # padding attends everywhere: a softmax over no position is NaN
            bias = torch.zeros(visible.shape, device=query.device).masked_fill_(~visible, float("-inf"))
            of_tile = query[token].transpose(1, 2)
            result = attend(of_tile, seen_keys, seen_values, bias, scaling, softcap, sinks).transpose(1, 2)
            _write(result, token, live, out, padding=rows.starts is None)


def _queries(rows: PagedRows, tokens: int, offsets: range) -> tuple[Tensor, Tensor, Tensor]:
    """Some queries of each row, [R, n]: their places on the packed axis, positions, and which exist."""
    offset = torch.arange(offsets.start, offsets.stop, device=rows.queries.device)
    queries = rows.queries.long()[:, None]
    if rows.starts is None:
        starts = torch.arange(len(queries), device=offset.device)[:, None] * rows.max_queries
    else:
        starts = rows.starts.long()[:, None]
    position = rows.lengths.long()[:, None] - queries + offset
    return (starts + offset).clamp(max=tokens - 1), position, offset < queries


def _write(result: Tensor, token: Tensor, live: Tensor, out: Tensor, *, padding: bool) -> None:
    """Write results, [R, n, heads, value_dim]; `padding` asks for zeros where there is no query."""
    if padding:
        out[token.flatten()] = (result * live[..., None, None]).flatten(0, 1)
    else:
        # Padding may point at other rows' tokens, so its results go to an extra row behind the last token.
        extended = torch.cat([out, out.new_zeros(1, *out.shape[1:])])
        extended.index_copy_(0, token.masked_fill(~live, len(out)).flatten(), result.flatten(0, 1))
        out.copy_(extended[:-1])


def _slots(rows: PagedRows, positions: Tensor) -> Tensor:
    """[R, n] int64 slots of the rows' positions, [R, n]."""
    blocks = rows.block_table.long().gather(1, positions // rows.block_size)
    return blocks * rows.block_size + positions % rows.block_size
