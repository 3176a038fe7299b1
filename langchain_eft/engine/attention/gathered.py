"""Attention of rows that are tensors, for devices without the Triton kernel: it gathers every whole context.

The contract is that of `triton.paged_attention_kernel`. Shapes follow the rows' bounds and not their values,
so nothing is read back to the host. With it, a CPU runs static rounds in tests.
"""

from __future__ import annotations

import torch
from torch import Tensor

from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.attention.sdpa import attend, padded_length


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
    """Store the new keys and values of some rows of a packed batch, then attend.

    Args:
        query: [N, heads, dim], the new tokens of all rows, one row after the other.
        keys: [N, kv_heads, dim], keys of the new tokens.
        values: [N, kv_heads, value_dim], values of the new tokens.
        key_pool: [slots, kv_heads, dim]; its last slot takes the keys of padding.
        value_pool: [slots, kv_heads, value_dim].
        rows: The rows.
        out: [N, heads, value_dim], contiguous; takes the results. Tokens outside all rows are left unchanged.
        scaling: Factor on the scores.
        sliding_window: Positions that a query attends to, its own included, or None.
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

    slots = _slots(rows, position.clamp(0, rows.max_length - 1))
    slots = slots.masked_fill(~live, key_pool.shape[0] - 1).flatten()
    key_pool.index_copy_(0, slots, keys[token.flatten()])
    value_pool.index_copy_(0, slots, values[token.flatten()])

    at = torch.arange(padded_length(rows.max_length), device=device)
    visible = at <= position[..., None]
    if sliding_window is not None:
        visible = visible & (at > position[..., None] - sliding_window)
    visible |= ~live[..., None]  # padding attends everywhere: a softmax over no position is NaN
    context_slots = _slots(rows, at.clamp(max=rows.max_length - 1).expand(len(lengths), -1))
    # A weight of 0 does not silence a NaN that another request has left in memory.
    beyond = (at >= lengths)[..., None, None]
    result = attend(
        query[token].transpose(1, 2),
        key_pool[context_slots].masked_fill(beyond, 0).transpose(1, 2),
        value_pool[context_slots].masked_fill(beyond, 0).transpose(1, 2),
        torch.zeros(visible.shape, device=device).masked_fill_(~visible, float("-inf")),
        scaling,
        softcap,
        sinks,
    ).transpose(1, 2)
    if rows.starts is None:
        out.copy_((result * live[..., None, None]).reshape(out.shape))
    else:
        # Padding may point at other rows' tokens, so its results go to an extra row behind the last token.
        extended = torch.cat([out, out.new_zeros(1, *out.shape[1:])])
        extended.index_copy_(0, token.masked_fill(~live, tokens).flatten(), result.flatten(0, 1))
        out.copy_(extended[:-1])


def _slots(rows: PagedRows, positions: Tensor) -> Tensor:
    """[R, n] int64 slots of the rows' positions, [R, n]."""
    blocks = rows.block_table.long().gather(1, positions // rows.block_size)
    return blocks * rows.block_size + positions % rows.block_size
