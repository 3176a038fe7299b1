"""Attention over paged KV, under unmodified transformers models.

transformers calls the registered function from every attention layer with rotary embedding already applied;
a `ForwardBatch`, handed through the model as the keyword `eft`, says which rows the packed tokens belong to.
No mask is ever built by the model, because the name is unknown to its mask builders: causality comes from
the rows' positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.attention.sdpa import attend

ATTENTION = "eft"


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
    """Transformers' attention-function contract over paged KV.

    The new keys and values are stored first: by the Triton kernel, which then attends in the same launch,
    or by copying, and then the context of each row is gathered.

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
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    tokens, new_keys, new_values = (x[0].transpose(0, 1) for x in (query, key, value))
    keys, values = eft.pool.layer(layer, new_keys, new_values)
    # Between rows of several groups there may be padding, which must not stay undefined.
    fresh = query.new_empty if len(eft.paged) < 2 else query.new_zeros
    out = fresh(*tokens.shape[:2], value.shape[-1])
    if eft.paged:
        store_and_attend = _gathering() if eft.gathers else _kernel()
        for rows in eft.paged:
            store_and_attend(
                tokens,
                new_keys,
                new_values,
                keys,
                values,
                rows,
                out,
                scaling=scaling,
                sliding_window=sliding_window,
                softcap=softcap,
                sinks=s_aux,
            )
        return out[None], None
    keys.index_copy_(0, eft.slots, new_keys)
    values.index_copy_(0, eft.slots, new_values)
    for row, context in zip(eft.rows, eft.contexts, strict=True):
        span = slice(row.start, row.start + row.queries)
        out[span] = attend(
            query[0, :, span],
            keys.index_select(0, context).transpose(0, 1),
            values.index_select(0, context).transpose(0, 1),
            eft.mask(row.queries, row.length, sliding_window),
            scaling,
            softcap,
            s_aux,
        ).transpose(0, 1)
    return out[None], None


def _kernel() -> Callable[..., None]:
    from langchain_eft.engine.attention.triton import paged_attention_kernel

    return paged_attention_kernel


def _gathering() -> Callable[..., None]:
    from langchain_eft.engine.attention.gathered import gathered_attention

    return gathered_attention


AttentionInterface.register(ATTENTION, paged_attention)
