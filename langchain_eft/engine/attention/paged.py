"""Attention over paged KV in unmodified transformers models.

transformers calls the registered function from every attention layer, after it has applied rotary embeddings.
The model passes on the keyword argument `eft`, a `ForwardBatch`, which says which rows the packed tokens
belong to. The model builds no mask, because its mask builders do not know the registered name. Causality
follows from the rows' positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.attention.gathered import attend_gathered
from langchain_eft.engine.attention.in_place import attend_in_place, attends_in_place
from langchain_eft.engine.device_kernels import has_kernel

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

    A GPU runs the Triton kernel, which stores the new keys and values and attends in one launch. A CPU runs
    the numba kernels in float32. Torch does the rest.

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
    tokens, keys, values = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
    features: dict[str, Any] = {
        "scaling": scaling,
        "softcap": softcap,
        "sinks": s_aux,
        "sliding_window": sliding_window,
    }
    # With several groups there may be padding between rows, and its results must be defined.
    new_output = query.new_empty if len(eft.paged) == 1 else query.new_zeros
    out = new_output(*tokens.shape[:2], value.shape[-1])
    if has_kernel(query.device):
        from langchain_eft.engine.attention.triton import paged_attention_kernel

        key_pool, value_pool = torch.split(memory, [key.shape[-1], value.shape[-1]], -1)
        for rows in eft.paged:
            paged_attention_kernel(tokens, keys, values, key_pool, value_pool, rows, out, **features)
    elif attends_in_place(query):
        attend_in_place(tokens, keys, values, memory, eft.paged, out, **features)
    else:
        attend_gathered(tokens, keys, values, memory, eft.paged, out, **features)
    return out[None], None


AttentionInterface.register(ATTENTION, paged_attention)
