"""Attention over paged KV in unmodified transformers models.

transformers calls the registered function from every attention layer, after it has applied rotary embeddings.
The model passes on the keyword argument `eft`, a `ForwardBatch`, which says which rows the packed tokens
belong to. The model builds no mask, because its mask builders do not know the registered name. Causality
follows from the rows' positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.attention.sdpa import QUERY_TILE, attend

ATTENTION = "eft"
"""The registered name: transformers' `attn_implementation`."""


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
    """Attention over paged KV, with the signature of transformers' attention functions.

    The Triton kernel stores the new keys and values and attends in one launch. Without it, the new keys and
    values are copied to the pool first, and then the context of each row is gathered.

    Args:
        module: The attention layer; `layer_idx` is its number in the pool.
        query: [1, heads, N, dim].
        key: [1, kv_heads, N, dim].
        value: [1, kv_heads, N, value_dim].
        attention_mask: Always None; causality follows from the batch.
        scaling: Factor on the scores.
        eft: The packed batch.
        sliding_window: Positions that a query attends to, its own included, or None.
        softcap: Bound on the scores, or None.
        s_aux: [heads] sink logits, or None.

    Returns:
        [1, N, heads, value_dim] and None for the attention weights.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    tokens, new_keys, new_values = (x[0].transpose(0, 1) for x in (query, key, value))
    keys, values = eft.pool.layer(layer, new_keys, new_values)
    # With several groups there may be padding between rows, and its results must be defined.
    new_output = query.new_empty if len(eft.paged) < 2 else query.new_zeros
    out = new_output(*tokens.shape[:2], value.shape[-1])
    if eft.paged:
        store_and_attend = _gathered() if eft.gathers else _kernel()
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
    keys.index_copy_(0, eft.new_slots, new_keys)
    values.index_copy_(0, eft.new_slots, new_values)
    for group in eft.groups:
        of_rows = tokens[group.tokens].view(-1, group.queries, *tokens.shape[1:]).transpose(1, 2)
        row_keys, row_values = group.context(keys), group.context(values)
        parts: list[Tensor] = []
        for first in range(0, group.queries, QUERY_TILE):
            stop = min(first + QUERY_TILE, group.queries)
            bias = group.bias(first, stop, sliding_window)
            length = bias.shape[-1]
            result = attend(
                of_rows[:, :, first:stop],
                row_keys[:, :, :length],
                row_values[:, :, :length],
                bias,
                scaling,
                softcap,
                s_aux,
            )
            parts.append(result)
        results = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
        results = results.transpose(1, 2).flatten(0, 1)
        if len(eft.groups) == 1:
            return results[None], None
        out[group.tokens] = results
    return out[None], None


def _kernel() -> Callable[..., None]:
    from langchain_eft.engine.attention.triton import paged_attention_kernel

    return paged_attention_kernel


def _gathered() -> Callable[..., None]:
    from langchain_eft.engine.attention.gathered import gathered_attention

    return gathered_attention


AttentionInterface.register(ATTENTION, paged_attention)
