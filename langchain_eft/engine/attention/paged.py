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

from langchain_eft.engine.attention import flash
from langchain_eft.engine.attention.batch import ForwardBatch, RowGroup
from langchain_eft.engine.attention.sdpa import attend

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
    memory = eft.pool.layer(int(module.layer_idx), key, value)  # type: ignore[arg-type]
    tokens = query.squeeze(0).transpose(0, 1)
    features: dict[str, Any] = {
        "scaling": scaling,
        "softcap": softcap,
        "sinks": s_aux,
        "sliding_window": sliding_window,
    }
    if eft.paged:
        store_and_attend = _gathered() if eft.gathers else _kernel()
        keys, values = torch.split(memory, [key.shape[-1], value.shape[-1]], -1)
        new_keys, new_values = (x.squeeze(0).transpose(0, 1) for x in (key, value))
        # With several groups there may be padding between rows, and its results must be defined.
        new_output = query.new_empty if len(eft.paged) == 1 else query.new_zeros
        out = new_output(*tokens.shape[:2], value.shape[-1])
        for rows in eft.paged:
            store_and_attend(tokens, new_keys, new_values, keys, values, rows, out, **features)
        return out[None], None
    new = torch.cat((key, value), -1).squeeze(0).transpose(0, 1)
    memory.index_copy_(0, eft.new_slots, new)
    if len(eft.groups) == 1:
        return _group_attention(tokens, memory, eft.groups[0], value.shape[-1], **features), None
    out = query.new_empty(1, *tokens.shape[:2], value.shape[-1])
    for group in eft.groups:
        of_group = tokens[group.tokens]
        out[:, group.tokens] = _group_attention(of_group, memory, group, value.shape[-1], **features)
    return out, None


def _group_attention(
    tokens: Tensor,
    memory: Tensor,
    group: RowGroup,
    value_dim: int,
    *,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
    sliding_window: int | None,
) -> Tensor:
    """[1, R * Q, heads, value_dim] of R rows, whose queries are `tokens`, [R * Q, heads, dim]."""
    heads, dim = tokens.shape[1:]
    query = torch.unflatten(tokens, 0, (-1, group.queries))
    parts: list[Tensor] = []
    if flash.takes(query, value_dim, softcap):
        num_shared = group.num_shared if sliding_window is None else 0
        shared, own = group.segments(memory, num_shared)
        for first, stop in group.tiles:
            bias = group.flash_bias(first, stop, sliding_window, heads // memory.shape[1], num_shared)
            seen = own[: len(bias)]  # with several tiles, the group is one row
            parts.append(flash.flash_attend(query[:, first:stop], seen, bias, scaling, sinks, shared))
    else:
        query = query.transpose(1, 2)
        keys, values = torch.split(group.context(memory), [dim, value_dim], -1)
        for first, stop in group.tiles:
            bias = group.bias(first, stop, sliding_window)
            of_tile, length = query[:, :, first:stop], bias.shape[-1]
            seen_keys, seen_values = keys[:, :, :length], values[:, :, :length]
            out = attend(of_tile, seen_keys, seen_values, bias, scaling, softcap, sinks)
            parts.append(out.transpose(1, 2))
    results = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return results.reshape(1, -1, *results.shape[2:])


def _kernel() -> Callable[..., None]:
    from langchain_eft.engine.attention.triton import paged_attention_kernel

    return paged_attention_kernel


def _gathered() -> Callable[..., None]:
    from langchain_eft.engine.attention.gathered import gathered_attention

    return gathered_attention


AttentionInterface.register(ATTENTION, paged_attention)
