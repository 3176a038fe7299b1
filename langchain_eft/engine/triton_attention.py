"""Paged attention of a few new tokens per row, as a split-KV Triton kernel.

Meant for decoding and verification: every row reads a long context for few queries, so the work is divided
over positions (flash decoding), and the query heads that share a KV head are packed into one tile, so that
each key is loaded once. Nothing is read back to the host, so calls can be captured in CUDA graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

MAX_SPLITS = 32
"""Bound on the splits of a row: the reduction holds one partial result of each in registers."""


@dataclass(frozen=True)
class PagedRows:
    """Which tokens of a packed batch belong to which row, and where each row's context is stored.

    Query `j` of a row sits at position `length - queries + j` and sees positions up to its own. Rows without
    queries or length are padding. The host constants decide the launch, so they must not change between the
    capture of a CUDA graph and its replay.

    Attributes:
        block_table: [R, max_blocks] int32 block ids, already shifted to the row's variant.
        starts: [R] int32, offset of the row's first query on the packed axis.
        queries: [R] int32, number of new tokens of the row.
        lengths: [R] int32, context length including the new tokens.
        block_size: Positions per block.
        max_queries: Upper bound of `queries`.
        max_length: Upper bound of `lengths`.
    """

    block_table: Tensor
    starts: Tensor
    queries: Tensor
    lengths: Tensor
    block_size: int
    max_queries: int
    max_length: int


def paged_attention_kernel(
    query: Tensor,
    key_pool: Tensor,
    value_pool: Tensor,
    batch_tables: PagedRows,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    processors: int | None = None,
) -> Tensor:
    """Grouped-query attention of all rows of a packed batch, whose keys and values are already stored.

    The last axis of every tensor must be contiguous.

    Args:
        query: [N, heads, dim], the tokens of all rows one after the other.
        key_pool: [slots, kv_heads, dim]; a slot is block id * block size + offset.
        value_pool: [slots, kv_heads, value_dim].
        batch_tables: The rows.
        scaling: Factor on the scores.
        sliding_window: Positions that a query sees, itself included, or None.
        softcap: Bound on the scores, or None.
        sinks: [heads] extra logits in the denominator, or None.
        processors: Multiprocessors to keep busy; by default those of the device.

    Returns:
        [N, heads, value_dim], zero for tokens of no row.
    """
    tokens, heads, dim = query.shape
    kv_heads, value_dim = value_pool.shape[1:]
    rows, group = batch_tables.block_table.shape[0], heads // kv_heads
    block_dim, block_value = padded(dim), padded(value_dim)
    block_m, block_n = tile_sizes(
        batch_tables.max_queries * group, max(block_dim, block_value), query.element_size()
    )
    tiles = -(-batch_tables.max_queries * group // block_m)
    splits, span = split_plan(
        rows * kv_heads, batch_tables.max_length, block_n, processors or _processors(query.device)
    )
    # The interpreter multiplies bfloat16 by its bit patterns.
    operand = tl.float32 if query.device.type == "cpu" else getattr(tl, str(query.dtype).split(".")[-1])

    partial = query.new_empty(tokens, heads, splits, value_dim, dtype=torch.float32)
    logs = query.new_empty(tokens, heads, splits, dtype=torch.float32)
    _attend_split[rows, kv_heads * tiles, splits](
        query,
        key_pool,
        value_pool,
        batch_tables.block_table,
        batch_tables.starts,
        batch_tables.queries,
        batch_tables.lengths,
        partial,
        logs,
        scaling,
        span,
        splits,
        batch_tables.block_table.stride(0),
        *query.stride()[:2],
        *key_pool.stride()[:2],
        *value_pool.stride()[:2],
        heads=heads,
        group=group,
        tiles=tiles,
        dim=dim,
        value_dim=value_dim,
        block_size=batch_tables.block_size,
        window=sliding_window,
        softcap=softcap,
        operand=operand,
        block_m=block_m,
        block_n=block_n,
        block_dim=block_dim,
        block_value=block_value,
        num_warps=8 if block_m == 128 else 4,
        num_stages=2,
    )
    out = query.new_zeros(tokens, heads, value_dim)
    _merge_splits[rows, batch_tables.max_queries, heads](
        partial,
        logs,
        sinks,
        batch_tables.starts,
        batch_tables.queries,
        batch_tables.lengths,
        out,
        span,
        splits,
        heads=heads,
        value_dim=value_dim,
        window=sliding_window,
        block_splits=triton.next_power_of_2(splits),
        block_value=block_value,
    )
    return out


def padded(size: int) -> int:
    """The power of two, at least 16 for the tensor cores, that holds `size`."""
    return max(16, 1 << (size - 1).bit_length())


def tile_sizes(pairs: int, width: int, element_size: int) -> tuple[int, int]:
    """How many (query, head) pairs and how many positions one step multiplies.

    Args:
        pairs: Pairs that share a KV head.
        width: Padded size of a head.
        element_size: Bytes of one number.

    Returns:
        The two sizes, powers of two, small enough for registers and shared memory.
    """
    # float32 is not for tensor cores, and larger tiles of it spill.
    most = 16 if element_size == 4 else max(16, min(128, 2**14 // width))
    return min(padded(pairs), most), max(16, min(64, 2**14 // (width * element_size)))


def split_plan(programs: int, max_length: int, step: int, processors: int) -> tuple[int, int]:
    """Divide the positions so that two programs run on every multiprocessor, if the context allows it.

    Args:
        programs: Programs without splitting.
        max_length: Positions to divide.
        step: Positions of one tile.
        processors: Multiprocessors.

    Returns:
        Number of splits and positions per split, a multiple of `step`.
    """
    wanted = min(MAX_SPLITS, -(-2 * processors // programs))
    span = -(-max_length // (wanted * step)) * step
    return -(-max_length // span), span


@cache
def _processors(device: torch.device) -> int:
    # Off the GPU, in the interpreter, two are enough to split small batches.
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


# Numbers that follow the batch are not specialized: each new value would compile the kernel again.
@triton.jit(do_not_specialize=["span", "splits", "table_stride"])  # type: ignore[untyped-decorator, unused-ignore]
def _attend_split(
    query: tl.tensor,
    key_pool: tl.tensor,
    value_pool: tl.tensor,
    block_table: tl.tensor,
    starts: tl.tensor,
    queries: tl.tensor,
    lengths: tl.tensor,
    partial: tl.tensor,
    logs: tl.tensor,
    scaling: tl.tensor,
    span: tl.tensor,
    splits: tl.tensor,
    table_stride: tl.tensor,
    query_stride: tl.tensor,
    query_head_stride: tl.tensor,
    key_stride: tl.tensor,
    key_head_stride: tl.tensor,
    value_stride: tl.tensor,
    value_head_stride: tl.tensor,
    heads: tl.constexpr,
    group: tl.constexpr,
    tiles: tl.constexpr,
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
) -> None:
    """One row, KV head, tile of (query, head) pairs, and split: a normalized result and its log-sum-exp."""
    row, split = tl.program_id(0), tl.program_id(2)
    kv_head, tile = tl.program_id(1) // tiles, tl.program_id(1) % tiles
    count = tl.load(queries + row)
    length = tl.load(lengths + row)
    first = tile * block_m // group
    begin = split * span
    end = tl.minimum(begin + span, length)
    if window is not None:
        seen = tl.maximum(length - count + first - window + 1, 0)
        begin = tl.maximum(begin, seen // block_n * block_n)
    if first >= count or begin >= end:
        return

    pair = tile * block_m + tl.arange(0, block_m)
    head = kv_head * group + pair % group
    token = tl.load(starts + row).to(tl.int64) + pair // group
    position = length - count + pair // group
    live = pair // group < count
    columns = tl.arange(0, block_n)
    dims = tl.arange(0, block_dim)
    value_dims = tl.arange(0, block_value)
    packed = tl.load(
        query + (token * query_stride + head * query_head_stride)[:, None] + dims[None, :],
        mask=live[:, None] & (dims < dim)[None, :],
        other=0.0,
    ).to(operand)

    # A finite start keeps pairs that see nothing of this split free of NaN.
    top = tl.full([block_m], -1e30, tl.float32)
    total = tl.full([block_m], 0.0, tl.float32)
    result = tl.full([block_m, block_value], 0.0, tl.float32)
    for base in range(begin, end, block_n):
        at = base + columns
        stored = at < end
        block = tl.load(block_table + row * table_stride + at // block_size, mask=stored, other=0)
        slot = block.to(tl.int64) * block_size + at % block_size
        keys = tl.load(
            key_pool + kv_head * key_head_stride + (slot * key_stride)[None, :] + dims[:, None],
            mask=stored[None, :] & (dims < dim)[:, None],
            other=0.0,
        ).to(operand)
        values = tl.load(
            value_pool + kv_head * value_head_stride + (slot * value_stride)[:, None] + value_dims[None, :],
            mask=stored[:, None] & (value_dims < value_dim)[None, :],
            other=0.0,
        ).to(operand)
        scores = tl.dot(packed, keys, input_precision="ieee") * scaling
        if softcap is not None:
            scores = (2 * tl.sigmoid(2 * scores / softcap) - 1) * softcap
        visible = at[None, :] <= position[:, None]
        if window is not None:
            visible = visible & (at[None, :] > position[:, None] - window)
        scores = tl.where(visible, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp(scores - new_top[:, None])
        fade = tl.exp(top - new_top)
        total = total * fade + tl.sum(weights, 1)
        result = tl.dot(weights.to(operand), values, result * fade[:, None], input_precision="ieee")
        top = new_top

    total = tl.where(total > 0, total, 1.0)
    index = (token * heads + head) * splits + split
    tl.store(logs + index, top + tl.log(total), mask=live)
    tl.store(
        partial + index[:, None] * value_dim + value_dims[None, :],
        result / total[:, None],
        mask=live[:, None] & (value_dims < value_dim)[None, :],
    )


@triton.jit(do_not_specialize=["span", "splits"])  # type: ignore[untyped-decorator, unused-ignore]
def _merge_splits(
    partial: tl.tensor,
    logs: tl.tensor,
    sinks: tl.tensor,
    starts: tl.tensor,
    queries: tl.tensor,
    lengths: tl.tensor,
    out: tl.tensor,
    span: tl.tensor,
    splits: tl.tensor,
    heads: tl.constexpr,
    value_dim: tl.constexpr,
    window: tl.constexpr,
    block_splits: tl.constexpr,
    block_value: tl.constexpr,
) -> None:
    """One query and head: the average of the splits that it sees, weighted by their share of the softmax."""
    row, offset, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    count = tl.load(queries + row)
    position = tl.load(lengths + row) - count + offset
    if offset >= count or position < 0:
        return
    split = tl.arange(0, block_splits)
    seen = split <= position // span
    if window is not None:
        seen = seen & (split >= tl.maximum(position - window + 1, 0) // span)
    pair = (tl.load(starts + row).to(tl.int64) + offset) * heads + head
    index = pair * splits + split
    log = tl.load(logs + index, mask=seen, other=float("-inf"))
    top = tl.max(log, 0)
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
        mask=seen[:, None] & (value_dims < value_dim)[None, :],
        other=0.0,
    )
    tl.store(
        out + pair * value_dim + value_dims,
        tl.sum(parts * weights[:, None], 0) / total,
        mask=value_dims < value_dim,
    )
