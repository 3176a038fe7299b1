"""Attention of rows that are tensors, where there is no Triton kernel: every context is gathered whole.

The same contract as `triton_attention.paged_attention_kernel`: shapes follow the rows' bounds, never their
content, so that nothing is read back to the host. A CPU runs the captured decode path this way in tests.
"""

from __future__ import annotations

import torch
from torch import Tensor

from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.attention.sdpa import attend


def gathered_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    key_pool: Tensor,
    value_pool: Tensor,
    rows: PagedRows,
    out: Tensor,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> None:
    """Store the new keys and values of some rows of a packed batch, and attend.

    Args:
        query: [N, heads, dim], the tokens of all rows one after the other.
        keys: [N, kv_heads, dim], theirs.
        values: [N, kv_heads, value_dim], theirs.
        key_pool: [slots, kv_heads, dim]; its last slot is nobody's.
        value_pool: [slots, kv_heads, value_dim].
        rows: The rows.
        out: [N, heads, value_dim], contiguous; takes the results. Tokens of no row are left alone.
        scaling: Factor on the scores.
        sliding_window: Positions that a query sees, itself included, or None.
        softcap: Bound on the scores, or None.
        sinks: [heads] extra logits in the denominator, or None.
    """
    tokens, device = query.shape[0], query.device
    queries, lengths = rows.queries.long()[:, None], rows.lengths.long()[:, None]
    offset = torch.arange(rows.max_queries, device=device)
    live = offset < queries
    if rows.starts is None:
        token = torch.arange(live.numel(), device=device).view(live.shape)
    else:
        token = (rows.starts.long()[:, None] + offset).clamp(max=tokens - 1)
    position = lengths - queries + offset

    place = position.clamp(0, rows.max_length - 1)
    slots = _slots(rows, place).masked_fill(~live, key_pool.shape[0] - 1).flatten()
    key_pool.index_copy_(0, slots, keys[token.flatten()])
    value_pool.index_copy_(0, slots, values[token.flatten()])

    at = torch.arange(rows.max_length, device=device)
    visible = at <= position[..., None]
    if sliding_window is not None:
        visible = visible & (at > position[..., None] - sliding_window)
    context = _slots(rows, at.expand(len(lengths), -1))
    found = attend(
        query[token].transpose(1, 2),
        key_pool[context].transpose(1, 2),
        value_pool[context].transpose(1, 2),
        visible | ~live[..., None],  # padding sees anything, for who sees nothing is not a number
        scaling,
        softcap,
        sinks,
    ).transpose(1, 2)
    if rows.starts is None:
        out.copy_((found * live[..., None, None]).view_as(out))
    else:
        # Padding may point at other rows' tokens: it goes to a place of its own behind the last.
        taken = torch.cat([out, out.new_zeros(1, *out.shape[1:])])
        taken.index_copy_(0, token.masked_fill(~live, tokens).flatten(), found.flatten(0, 1))
        out.copy_(taken[:-1])


def _slots(rows: PagedRows, positions: Tensor) -> Tensor:
    """[R, n] slots of [R, n] positions."""
    blocks = rows.block_table.long().gather(1, positions // rows.block_size)
    return blocks * rows.block_size + positions % rows.block_size
