"""Attention over paged KV, under unmodified transformers models.

transformers calls the registered function from every attention layer with rotary embedding already applied;
a `ForwardBatch`, handed through the model as the keyword `eft`, says which rows the packed tokens belong to.
No mask is ever built by the model, because the name is unknown to its mask builders: causality comes from
the rows' positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from langchain_eft.engine.kv_cache import KVPool

ATTENTION = "eft"


@dataclass(frozen=True)
class Row:
    """A run of new tokens of one sequence and variant inside a packed batch.

    Attributes:
        start: Offset of the first new token on the packed axis.
        queries: Number of new tokens.
        context: [position + queries] int64, slots of every token that the row may look at, in order.
    """

    start: int
    queries: int
    context: Tensor


@dataclass
class ForwardBatch:
    """One forward pass of one model over packed rows.

    Attributes:
        ids: [1, N] int64 token ids of all rows, one after the other.
        positions: [1, N] int64 position of each token in its own sequence.
        slots: [N] int64, where each token's keys and values are stored.
        rows: The rows, in packed order.
        pool: The model's KV memory.
        variants: [N] int64, which variant (0 is the plain model, i the i-th adapter) each token runs through.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    rows: list[Row]
    pool: KVPool
    variants: Tensor
    _masks: dict[tuple[int, int, int | None], Tensor | None] = field(default_factory=dict)

    def mask(self, queries: int, length: int, window: int | None) -> Tensor | None:
        """[queries, length] bool, True where a query may look; None where it may look everywhere."""
        key = (queries, length, window)
        if key not in self._masks:
            self._masks[key] = causal_mask(queries, length, window, self.ids.device)
        return self._masks[key]


def causal_mask(queries: int, length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Mask of the last `queries` positions over `length` keys; `window` counts the token itself."""
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
    """Grouped-query attention of one row.

    Args:
        query: [heads, Q, dim].
        keys: [kv_heads, T, dim].
        values: [kv_heads, T, value_dim].
        mask: [Q, T] bool or None.
        scaling: Factor on the scores.
        softcap: Bound on the scores (Gemma 2), or None.
        sinks: [heads] learned sink logits (gpt-oss), or None.

    Returns:
        [heads, Q, value_dim].
    """
    if softcap is None and sinks is None:
        return F.scaled_dot_product_attention(
            query[None], keys[None], values[None], attn_mask=mask, scale=scaling, enable_gqa=True
        )[0]
    groups = query.shape[0] // keys.shape[0]
    scores = query @ keys.repeat_interleave(groups, 0).transpose(1, 2) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        column = sinks.to(scores.dtype)[:, None, None].expand(-1, scores.shape[1], 1)
        scores = torch.cat([scores, column], -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)[..., : keys.shape[1]]
    return weights @ values.repeat_interleave(groups, 0)


def paged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  (part of the contract)
    *,
    scaling: float,
    eft: ForwardBatch,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention-function contract over paged KV, by gathering each row's context.

    Args:
        module: The attention layer; its `layer_idx` names the pool's layer.
        query: [1, heads, N, dim].
        key: [1, kv_heads, N, dim].
        value: [1, kv_heads, N, value_dim].
        attention_mask: Always None; causality is the batch's.
        scaling: Factor on the scores.
        eft: The packed batch.
        sliding_window: Positions that a query sees, itself included, or None.
        softcap: Bound on the scores, or None.
        s_aux: [heads] sink logits, or None.

    Returns:
        [1, N, heads, value_dim] and None for the attention weights.
    """
    keys, values = eft.pool.write(
        int(module.layer_idx),  # type: ignore[arg-type]
        eft.slots,
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
    )
    out = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
    for row in eft.rows:
        span = slice(row.start, row.start + row.queries)
        out[span] = attend(
            query[0, :, span],
            keys.index_select(0, row.context).transpose(0, 1),
            values.index_select(0, row.context).transpose(0, 1),
            eft.mask(row.queries, row.context.shape[0], sliding_window),
            scaling,
            softcap,
            s_aux,
        ).transpose(0, 1)
    return out[None], None


AttentionInterface.register(ATTENTION, paged_attention)
