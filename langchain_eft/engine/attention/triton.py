"""Attention of packed rows over paged KV: one split-KV Triton kernel that also stores new keys and values.

Decoding and verification read a long context for few queries. So the work is divided over positions (flash
decoding). The query heads that share a KV head are packed into one tile, so that each key is loaded once.

The chunk of a prompt has enough tiles to keep the device busy. It runs through the same kernel without
splits, tile by tile up to the diagonal. The alternatives cost more: gathering copies the context, and
FlexAttention recompiles.

The kernel reads new keys and values from the model's output and stores them at the same time, so attention
does not wait for the store. Nothing is read back to the host. A launch depends only on shapes and on the
constants of its `PagedRows`, so calls can be captured in CUDA graphs.
"""

from __future__ import annotations

from functools import cache

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from langchain_eft.engine.attention.batch import MAX_DECODING_QUERIES, on_device
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.dependent_launch import dependent_launch, wait_for_previous

MAX_SPLITS = 32
"""Most splits of a row: `_merge` holds one partial result of each split in registers."""

LONG = tl.constexpr(2048)
"""Positions of a row that decodes for which it has a split of its own, beside many short rows too."""


def paged_attention_kernel(
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
    processors: int | None = None,
) -> None:
    """Store the new keys and values of some rows of a packed batch, and attend.

    Must equal `gathered.attend_gathered` up to the rounding of sums. The last axis of every tensor must be
    contiguous.

    Args:
        query: [N, heads, dim], the new tokens of all rows, one row after the other.
        keys: [N, kv_heads, dim], keys of the new tokens.
        values: [N, kv_heads, value_dim], values of the new tokens.
        key_pool: [slots, kv_heads, dim]; a slot is block id * block size + offset.
        value_pool: [slots, kv_heads, value_dim].
        rows: The rows.
        out: [N, heads, value_dim], contiguous; takes the results. Tokens outside all rows are left unchanged.
        scaling: Factor on the scores.
        sliding_window: Positions that a query attends to, its own included, or None.
        softcap: Bound on the scores, or None.
        sinks: [heads] extra logits in the denominator, or None.
        processors: Multiprocessors to keep busy; None for those of the device.
    """
    tokens, heads, dim = query.shape
    kv_heads, value_dim = value_pool.shape[1:]
    count, group = rows.block_table.shape[0], heads // kv_heads
    block_dim, block_value = padded(dim), padded(value_dim)
    block_m, block_n = tile_sizes(rows.max_queries * group, max(block_dim, block_value), query.element_size())
    tiles = -(-rows.max_queries * group // block_m)
    few_splits = splits = split_count(
        count * kv_heads * tiles, rows.max_length, block_n, processors or _processors(query.device)
    )
    if rows.max_queries <= MAX_DECODING_QUERIES:
        splits = max(few_splits, min(MAX_SPLITS, -(-rows.max_length // LONG.value)))
    # The interpreter multiplies bfloat16 by its bit patterns.
    operand = tl.float32 if query.device.type == "cpu" else getattr(tl, str(query.dtype).split(".")[-1])

    partial = logs = None
    if splits > 1:
        partial = query.new_empty(tokens, heads, splits, value_dim, dtype=torch.float32)
        logs = query.new_empty(tokens, heads, splits, dtype=torch.float32)
    with on_device(query.device):
        _attend[count, kv_heads * tiles, splits](
            query,
            keys,
            values,
            key_pool,
            value_pool,
            rows.block_table,
            rows.starts,
            rows.queries,
            rows.lengths,
            sinks,
            partial,
            logs,
            out,
            scaling,
            rows.max_queries,
            few_splits,
            splits,
            tiles,
            rows.block_table.stride(0),
            *query.stride()[:2],
            *keys.stride()[:2],
            *values.stride()[:2],
            *key_pool.stride()[:2],
            *value_pool.stride()[:2],
            heads=heads,
            group=group,
            dim=dim,
            value_dim=value_dim,
            block_size=rows.block_size,
            window=sliding_window,
            softcap=softcap,
            operand=operand,
            block_m=block_m,
            block_n=block_n,
            block_dim=block_dim,
            block_value=block_value,
            num_warps=8 if block_m == 128 else 4,
            # With 5 stages two tiles lie in shared memory, and the next one is read while one is multiplied:
            # the table of blocks, the address and the read are stages too. Wide heads have no room for that.
            stages=5 if max(block_dim, block_value) <= 128 else 2,
            **dependent_launch(query.device),
        )
        if splits > 1:
            _merge[count, rows.max_queries, heads](
                partial,
                logs,
                sinks,
                rows.starts,
                rows.queries,
                rows.lengths,
                out,
                few_splits,
                splits,
                heads=heads,
                value_dim=value_dim,
                window=sliding_window,
                block_n=block_n,
                block_splits=MAX_SPLITS,
                block_value=block_value,
                **dependent_launch(query.device),
            )


def padded(size: int) -> int:
    """The smallest power of two that is at least `size`, and at least 16 for the tensor cores."""
    return max(16, 1 << (size - 1).bit_length())


def tile_sizes(pairs: int, width: int, element_size: int) -> tuple[int, int]:
    """How many (query, head) pairs, and how many positions, one step of the kernel multiplies.

    Args:
        pairs: Number of (query, head) pairs that share a KV head.
        width: Padded size of a head.
        element_size: Bytes of one number.

    Returns:
        The two sizes, powers of two, small enough for registers and shared memory.
    """
    # float32 does not use tensor cores, and larger tiles of it spill registers.
    max_pairs = 16 if element_size == 4 else max(16, min(128, 2**14 // width))
    return min(padded(pairs), max_pairs), max(16, min(64, 2**14 // (width * element_size)))


def split_count(programs: int, max_length: int, step: int, processors: int) -> int:
    """Into how many splits to divide the positions, so that two programs run on every multiprocessor.

    Args:
        programs: Number of programs without splits.
        max_length: Number of positions to divide.
        step: Positions of one tile, which is never divided.
        processors: Number of multiprocessors.
    """
    return min(MAX_SPLITS, -(-2 * processors // programs), -(-max_length // step))


@cache
def _processors(device: torch.device) -> int:
    # In the interpreter, two are enough to split small batches.
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _split_span(
    length: tl.tensor, few_splits: tl.tensor, splits: tl.tensor, block_n: tl.constexpr
) -> tl.tensor:
    """Number of positions of one split: a multiple of a tile, from the row's own length.

    A short row has few splits; a long one has more, up to all of them.
    """
    own_splits = tl.minimum(splits, tl.maximum(few_splits, tl.cdiv(length, LONG)))
    return tl.cdiv(tl.cdiv(length, own_splits), block_n) * block_n


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _absorb(
    packed: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    at: tl.tensor,
    position: tl.tensor,
    end: tl.tensor,
    top: tl.tensor,
    total: tl.tensor,
    result: tl.tensor,
    scaling: tl.tensor,
    window: tl.constexpr,
    softcap: tl.constexpr,
    operand: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Add one tile of keys [dim, n] and values [n, dim], at positions `at`, to a running softmax."""
    scores = tl.dot(packed, keys, input_precision="ieee") * scaling
    if softcap is not None:
        scores = (2 * tl.sigmoid(2 * scores / softcap) - 1) * softcap
    visible = (at[None, :] <= position[:, None]) & (at < end)[None, :]
    if window is not None:
        visible = visible & (at[None, :] > position[:, None] - window)
    scores = tl.where(visible, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    weights = tl.exp(scores - new_top[:, None])
    decay = tl.exp(top - new_top)
    total = total * decay + tl.sum(weights, 1)
    result = tl.dot(weights.to(operand), values, result * decay[:, None], input_precision="ieee")
    return new_top, total, result


# Numbers that depend on the batch are not specialized: each new value would compile the kernel again.
@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["max_queries", "few_splits", "splits", "tiles", "table_stride"],
    do_not_specialize_on_alignment=["block_table", "starts", "queries", "lengths"],
)
def _attend(
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    key_pool: tl.tensor,
    value_pool: tl.tensor,
    block_table: tl.tensor,
    starts: tl.tensor,
    queries: tl.tensor,
    lengths: tl.tensor,
    sinks: tl.tensor,
    partial: tl.tensor,
    logs: tl.tensor,
    out: tl.tensor,
    scaling: tl.tensor,
    max_queries: tl.tensor,
    few_splits: tl.tensor,
    splits: tl.tensor,
    tiles: tl.tensor,
    table_stride: tl.tensor,
    query_stride: tl.tensor,
    query_head_stride: tl.tensor,
    new_key_stride: tl.tensor,
    new_key_head_stride: tl.tensor,
    new_value_stride: tl.tensor,
    new_value_head_stride: tl.tensor,
    key_stride: tl.tensor,
    key_head_stride: tl.tensor,
    value_stride: tl.tensor,
    value_head_stride: tl.tensor,
    heads: tl.constexpr,
    group: tl.constexpr,
    dim: tl.constexpr,
    value_dim: tl.constexpr,
    block_size: tl.constexpr,
    window: tl.constexpr,
    softcap: tl.constexpr,
    operand: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
    block_dim: tl.constexpr,
    block_value: tl.constexpr,
    stages: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """The attention of one row, KV head, tile of (query, head) pairs, and split.

    Without splits it writes the result. With splits it writes a normalized partial result and its
    log-sum-exp.
    """
    wait_for_previous(dependent)
    row, split = tl.program_id(0), tl.program_id(2)
    kv_head, tile = tl.program_id(1) // tiles, tl.program_id(1) % tiles
    count = tl.load(queries + row)
    length = tl.load(lengths + row)
    start = (row * max_queries if starts is None else tl.load(starts + row)).to(tl.int64)
    stored = length - count
    first = tile * block_m // group
    beyond = tl.minimum(count, ((tile + 1) * block_m - 1) // group + 1)
    span = _split_span(length, few_splits, splits, block_n)
    begin = split * span
    end = tl.minimum(begin + span, stored + beyond)
    if window is not None:
        begin = tl.maximum(begin, tl.maximum(stored + first - window + 1, 0) // block_n * block_n)
    if first >= count:
        end = begin
    # Padding gets its zeros here, unless `_merge` writes them. One condition cannot hold both compile-time
    # and run-time values.
    if partial is not None or starts is not None:  # noqa: SIM102
        if begin >= end:
            return

    pair = tile * block_m + tl.arange(0, block_m)
    head = kv_head * group + pair % group
    token = start + pair // group
    position = stored + pair // group
    live = pair // group < count
    columns = tl.arange(0, block_n)
    dims = tl.arange(0, block_dim)
    value_dims = tl.arange(0, block_value)
    packed = tl.load(
        query + (token * query_stride + head * query_head_stride)[:, None] + dims[None, :],
        mask=live[:, None] & (dims < dim)[None, :],
        other=0.0,
    ).to(operand)

    # A finite start avoids NaN for pairs that attend to no position of this split.
    top = tl.full([block_m], -1e30, tl.float32)
    total = tl.full([block_m], 0.0, tl.float32)
    result = tl.full([block_m, block_value], 0.0, tl.float32)
    old = tl.minimum(end, stored)
    for base in tl.range(begin, old, block_n, num_stages=stages):
        at = base + columns
        block = tl.load(block_table + row * table_stride + at // block_size, mask=at < old, other=0)
        slot = block.to(tl.int64) * block_size + at % block_size
        old_keys = tl.load(
            key_pool + kv_head * key_head_stride + (slot * key_stride)[None, :] + dims[:, None],
            mask=(at < old)[None, :] & (dims < dim)[:, None],
            other=0.0,
        ).to(operand)
        old_values = tl.load(
            value_pool + kv_head * value_head_stride + (slot * value_stride)[:, None] + value_dims[None, :],
            mask=(at < old)[:, None] & (value_dims < value_dim)[None, :],
            other=0.0,
        ).to(operand)
        top, total, result = _absorb(
            packed,
            old_keys,
            old_values,
            at,
            position,
            old,
            top,
            total,
            result,
            scaling,
            window,
            softcap,
            operand,
        )
    for base in tl.range(tl.maximum(begin, stored), end, block_n, num_stages=1):
        at = base + columns
        new = start + at - stored
        block = tl.load(block_table + row * table_stride + at // block_size, mask=at < end, other=0)
        slot = block.to(tl.int64) * block_size + at % block_size
        key_mask = (at < end)[None, :] & (dims < dim)[:, None]
        new_keys = tl.load(
            keys + kv_head * new_key_head_stride + (new * new_key_stride)[None, :] + dims[:, None],
            mask=key_mask,
            other=0.0,
        )
        value_mask = (at < end)[:, None] & (value_dims < value_dim)[None, :]
        new_values = tl.load(
            values
            + kv_head * new_value_head_stride
            + (new * new_value_stride)[:, None]
            + value_dims[None, :],
            mask=value_mask,
            other=0.0,
        )
        # Several tiles read a token; the tile with its query stores it.
        stores = at >= stored + first
        tl.store(
            key_pool + kv_head * key_head_stride + (slot * key_stride)[None, :] + dims[:, None],
            new_keys,
            mask=key_mask & stores[None, :],
        )
        tl.store(
            value_pool + kv_head * value_head_stride + (slot * value_stride)[:, None] + value_dims[None, :],
            new_values,
            mask=value_mask & stores[:, None],
        )
        top, total, result = _absorb(
            packed,
            new_keys.to(operand),
            new_values.to(operand),
            at,
            position,
            end,
            top,
            total,
            result,
            scaling,
            window,
            softcap,
            operand,
        )

    if partial is None:
        if sinks is not None:
            sink = tl.load(sinks + head).to(tl.float32)
            new_top = tl.maximum(top, sink)
            decay = tl.exp(top - new_top)
            total = total * decay + tl.exp(sink - new_top)
            result *= decay[:, None]
        written = live if starts is not None else pair // group < max_queries
        tl.store(
            out + ((token * heads + head) * value_dim)[:, None] + value_dims[None, :],
            tl.where(live[:, None], result / tl.where(total > 0, total, 1.0)[:, None], 0.0),
            mask=written[:, None] & (value_dims < value_dim)[None, :],
        )
    else:
        total = tl.where(total > 0, total, 1.0)
        index = (token * heads + head) * splits + split
        tl.store(logs + index, top + tl.log(total), mask=live)
        tl.store(
            partial + index[:, None] * value_dim + value_dims[None, :],
            result / total[:, None],
            mask=live[:, None] & (value_dims < value_dim)[None, :],
        )


@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["few_splits", "splits"],
    do_not_specialize_on_alignment=["starts", "queries", "lengths"],
)
def _merge(
    partial: tl.tensor,
    logs: tl.tensor,
    sinks: tl.tensor,
    starts: tl.tensor,
    queries: tl.tensor,
    lengths: tl.tensor,
    out: tl.tensor,
    few_splits: tl.tensor,
    splits: tl.tensor,
    heads: tl.constexpr,
    value_dim: tl.constexpr,
    window: tl.constexpr,
    block_n: tl.constexpr,
    block_splits: tl.constexpr,
    block_value: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """The result of one query and head: the mean of its splits, weighted by their share of the softmax."""
    wait_for_previous(dependent)
    row, offset, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    count = tl.load(queries + row)
    length = tl.load(lengths + row)
    position = length - count + offset
    live = (offset < count) & (position >= 0)
    if starts is not None:  # noqa: SIM102
        if not live:
            return
    span = _split_span(length, few_splits, splits, block_n)
    split = tl.arange(0, block_splits)
    # Not `live & ...`: the interpreter broadcasts a scalar bool as int32, which Triton 3.9 refuses as a mask.
    visible = split * span <= tl.where(live, position, -1)
    if window is not None:
        visible = visible & ((split + 1) * span > position - window + 1)
    start = row * tl.num_programs(1) if starts is None else tl.load(starts + row)
    pair = (start.to(tl.int64) + offset) * heads + head
    index = pair * splits + split
    log = tl.load(logs + index, mask=visible & (split < splits), other=float("-inf"))
    top = tl.maximum(tl.max(log, 0), -1e30)
    if sinks is not None:
        sink = tl.load(sinks + head).to(tl.float32)
        top = tl.maximum(top, sink)
    weights = tl.exp(log - top)
    total = tl.sum(weights, 0)
    if sinks is not None:
        total += tl.exp(sink - top)
    value_dims = tl.arange(0, block_value)
    parts = tl.load(
        partial + index[:, None] * value_dim + value_dims[None, :],
        mask=(visible & (split < splits))[:, None] & (value_dims < value_dim)[None, :],
        other=0.0,
    )
    tl.store(
        out + pair * value_dim + value_dims,
        tl.sum(parts * weights[:, None], 0) / tl.where(total > 0, total, 1.0),
        mask=value_dims < value_dim,
    )
