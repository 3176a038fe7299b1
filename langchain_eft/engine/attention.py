"""Attention over paged KV, under unmodified transformers models.

transformers calls the registered function from every attention layer with rotary embedding already applied;
a `ForwardBatch`, handed through the model as the keyword `eft`, says which rows the packed tokens belong to.
No mask is ever built by the model, because the name is unknown to its mask builders: causality comes from
the rows' positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from langchain_eft.engine.kv_cache import KVPool, token_slots
from langchain_eft.engine.paged_rows import PagedRows

ATTENTION = "eft"

FEW_QUERIES = 17
"""Most new tokens of a decoding row: a draft of 16 and the token before it."""


@dataclass(frozen=True)
class Row:
    """A run of new tokens of one sequence and variant inside a packed batch.

    Attributes:
        start: Offset of the first new token on the packed axis.
        queries: Number of new tokens.
        length: Number of tokens that the last new one may look at, itself included.
        blocks: Where those are stored, in order: block ids, shifted to the variant.
    """

    start: int
    queries: int
    length: int
    blocks: Sequence[int]


@dataclass
class ForwardBatch:
    """One forward pass of one model over packed rows.

    Attributes:
        ids: [1, N] int64 token ids of all rows, one after the other.
        positions: [1, N] int64 position of each token in its own sequence.
        variants: [N] int64, which variant (0 is the plain model, i the i-th adapter) each token runs through.
        pool: The model's KV memory.
        block_size: Positions per block.
        rows: The rows, in packed order; not needed where `paged` has them.
        paged: The rows as tensors, or none, where `rows` has them.
        gathers: Whether the contexts of `paged` are gathered, rather than read by the Triton kernel.
    """

    ids: Tensor
    positions: Tensor
    variants: Tensor
    pool: KVPool
    block_size: int
    rows: Sequence[Row] = ()
    paged: Sequence[PagedRows] = ()
    gathers: bool = False
    _masks: dict[tuple[int, int, int | None], Tensor | None] = field(default_factory=dict)
    _copies: dict[torch.device, ForwardBatch] = field(default_factory=dict)

    def mask(self, queries: int, length: int, window: int | None) -> Tensor | None:
        """[queries, length] bool, True where a query may look; None where it may look everywhere."""
        key = (queries, length, window)
        if key not in self._masks:
            self._masks[key] = causal_mask(queries, length, window, self.ids.device)
        return self._masks[key]

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> ForwardBatch:
        """The same on another device; accelerate asks for it where it spreads layers over several."""
        place = torch.empty(0, device=device).device
        if place == self.ids.device:
            return self
        if place not in self._copies:
            ids, positions, variants = (
                x.to(place, non_blocking=non_blocking) for x in (self.ids, self.positions, self.variants)
            )
            self._copies[place] = replace(
                self,
                ids=ids,
                positions=positions,
                variants=variants,
                paged=[rows.to(place) for rows in self.paged],
                _masks={},
                _copies={},
            )
        return self._copies[place]

    @cached_property
    def contexts(self) -> list[Tensor]:
        """[length] slots of each row's context."""
        return [
            token_slots(row.blocks, 0, row.length, self.block_size).to(self.ids.device) for row in self.rows
        ]

    @cached_property
    def slots(self) -> Tensor:
        """[N] int64, where each token's keys and values are stored."""
        pairs = zip(self.rows, self.contexts, strict=True)
        return torch.cat([context[row.length - row.queries :] for row, context in pairs])


def page(rows: Sequence[Row], block_size: int, device: torch.device) -> list[PagedRows]:
    """Rows for the Triton kernel; those of few queries apart from long chunks, which need another launch.

    Args:
        rows: In any order, at least one.
        block_size: Positions per block.
        device: Where they go.
    """
    few = [row for row in rows if row.queries <= FEW_QUERIES]
    many = [row for row in rows if row.queries > FEW_QUERIES]
    return [_page(group, block_size, device) for group in (few, many) if group]


def _page(rows: Sequence[Row], block_size: int, device: torch.device) -> PagedRows:
    width = max(len(row.blocks) for row in rows)
    numbers = [
        [row.start, row.queries, row.length, *row.blocks, *[0] * (width - len(row.blocks))] for row in rows
    ]
    packed = torch.tensor(numbers, dtype=torch.int32).t().contiguous().to(device)
    starts, queries, lengths = packed[:3]
    return PagedRows(
        block_table=packed[3:].t().contiguous(),
        starts=starts,
        queries=queries,
        lengths=lengths,
        block_size=block_size,
        max_queries=max(row.queries for row in rows),
        max_length=max(row.length for row in rows),
    )


@cache
def has_kernel(device: torch.device) -> bool:
    """Whether the Triton kernel runs there: on GPUs since Ampere, where Triton is installed."""
    return (
        device.type == "cuda"
        and find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


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
    """Grouped-query attention of one row, or of several alike.

    Args:
        query: [..., heads, Q, dim].
        keys: [..., kv_heads, T, dim].
        values: [..., kv_heads, T, value_dim].
        mask: [..., Q, T] bool or None.
        scaling: Factor on the scores.
        softcap: Bound on the scores (Gemma 2), or None.
        sinks: [heads] learned sink logits (gpt-oss), or None.

    Returns:
        [..., heads, Q, value_dim].
    """
    mask = None if mask is None else mask.unsqueeze(-3)
    if softcap is None and sinks is None:
        one = query.dim() == 3
        q, k, v = (x[None] if one else x for x in (query, keys, values))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=True)
        return out[0] if one else out
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
    from langchain_eft.engine.triton_attention import paged_attention_kernel  # which needs Triton

    return paged_attention_kernel


def _gathering() -> Callable[..., None]:
    from langchain_eft.engine.gathered_attention import gathered_attention  # which needs this module

    return gathered_attention


AttentionInterface.register(ATTENTION, paged_attention)
