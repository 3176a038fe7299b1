"""Attention of packed rows over paged KV: one split-KV Triton kernel, which also stores new keys and values.

Decoding and verification read a long context for few queries, so the work is divided over positions (flash
decoding), and the query heads that share a KV head are packed into one tile, so that each key is loaded once.
A prompt's chunk brings enough tiles to keep the device busy: it runs through the same kernel undivided, tile
by tile up to the diagonal, where gathering the context and FlexAttention would both copy or recompile.

New keys and values are attended to where the model left them and stored on the way, so nobody waits for the
store. Nothing is read back to the host, and a launch depends only on shapes and on the constants of its
`PagedRows`, so that calls can be captured in CUDA graphs.
"""

from __future__ import annotations

from functools import cache

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from langchain_eft.engine.attention.rows import PagedRows

MAX_SPLITS = 32
"""Bound on the splits of a row: the reduction holds one partial result of each in registers."""


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

    The last axis of every tensor must be contiguous.

    Args:
        query: [N, heads, dim], the tokens of all rows one after the other.
        keys: [N, kv_heads, dim], theirs.
        values: [N, kv_heads, value_dim], theirs.
        key_pool: [slots, kv_heads, dim]; a slot is block id * block size + offset.
        value_pool: [slots, kv_heads, value_dim].
        rows: The rows.
        out: [N, heads, value_dim], contiguous; takes the results. Tokens of no row are left alone.
        scaling: Factor on the scores.
        sliding_window: Positions that a query sees, itself included, or None.
        softcap: Bound on the scores, or None.
        sinks: [heads] extra logits in the denominator, or None.
        processors: Multiprocessors to keep busy; by default those of the device.
    """
    tokens, heads, dim = query.shape
    kv_heads, value_dim = value_pool.shape[1:]
    count, group = rows.block_table.shape[0], heads // kv_heads
    block_dim, block_value = padded(dim), padded(value_dim)
    block_m, block_n = tile_sizes(rows.max_queries * group, max(block_dim, block_value), query.element_size())
    tiles = -(-rows.max_queries * group // block_m)
    splits = split_count(
        count * kv_heads * tiles, rows.max_length, block_n, processors or _processors(query.device)
    )
    # The interpreter multiplies bfloat16 by its bit patterns.
    operand = tl.float32 if query.device.type == "cpu" else getattr(tl, str(query.dtype).split(".")[-1])

    partial = logs = None
    if splits > 1:
        partial = query.new_empty(tokens, heads, splits, value_dim, dtype=torch.float32)
        logs = query.new_empty(tokens, heads, splits, dtype=torch.float32)
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
        splits,
        rows.block_table.stride(0),
        *query.stride()[:2],
        *keys.stride()[:2],
        *values.stride()[:2],
        *key_pool.stride()[:2],
        *value_pool.stride()[:2],
        heads=heads,
        group=group,
        tiles=tiles,
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
        num_stages=2,
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
            splits,
            heads=heads,
            value_dim=value_dim,
            window=sliding_window,
            block_n=block_n,
            block_splits=triton.next_power_of_2(splits),
            block_value=block_value,
        )


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


def split_count(programs: int, max_length: int, step: int, processors: int) -> int:
    """How often to divide the positions so that two programs run on every multiprocessor.

    Args:
        programs: Programs without splitting.
        max_length: Positions to divide.
        step: Positions of one tile, which is never divided.
        processors: Multiprocessors.
    """
    return min(MAX_SPLITS, -(-2 * processors // programs), -(-max_length // step))


@cache
def _processors(device: torch.device) -> int:
    # Off the GPU, in the interpreter, two are enough to split small batches.
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _split_span(length: tl.tensor, splits: tl.tensor, block_n: tl.constexpr) -> tl.tensor:
    """Positions of one split, a multiple of a tile; splits follow the row's own length."""
    return tl.cdiv(tl.cdiv(length, splits), block_n) * block_n


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
    """One tile of keys [dim, n] and values [n, dim] at positions `at`, added to a running softmax."""
    scores = tl.dot(packed, keys, input_precision="ieee") * scaling
    if softcap is not None:
        scores = (2 * tl.sigmoid(2 * scores / softcap) - 1) * softcap
    visible = (at[None, :] <= position[:, None]) & (at < end)[None, :]
    if window is not None:
        visible = visible & (at[None, :] > position[:, None] - window)
    scores = tl.where(visible, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    weights = tl.exp(scores - new_top[:, None])
    fade = tl.exp(top - new_top)
    total = total * fade + tl.sum(weights, 1)
    result = tl.dot(weights.to(operand), values, result * fade[:, None], input_precision="ieee")
    return new_top, total, result


# Numbers that follow the batch are not specialized: each new value would compile the kernel again.
@triton.jit(do_not_specialize=["places", "splits", "table_stride"])  # type: ignore[untyped-decorator, unused-ignore]
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
    places: tl.tensor,
    splits: tl.tensor,
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
    """One row, KV head, tile of (query, head) pairs, and split.

    Writes the result where the row is whole, else a normalized result and its log-sum-exp.
    """
    row, split = tl.program_id(0), tl.program_id(2)
    kv_head, tile = tl.program_id(1) // tiles, tl.program_id(1) % tiles
    count = tl.load(queries + row)
    length = tl.load(lengths + row)
    start = (row * places if starts is None else tl.load(starts + row)).to(tl.int64)
    stored = length - count
    first = tile * block_m // group
    beyond = tl.minimum(count, ((tile + 1) * block_m - 1) // group + 1)
    span = _split_span(length, splits, block_n)
    begin = split * span
    end = tl.minimum(begin + span, stored + beyond)
    if window is not None:
        begin = tl.maximum(begin, tl.maximum(stored + first - window + 1, 0) // block_n * block_n)
    if first >= count:
        end = begin
    # Places without a token are filled with zeros here, unless the merge does it. (What is known when the
    # kernel is compiled, and what is not, cannot meet in one condition.)
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

    # A finite start keeps pairs that see nothing of this split free of NaN.
    top = tl.full([block_m], -1e30, tl.float32)
    total = tl.full([block_m], 0.0, tl.float32)
    result = tl.full([block_m, block_value], 0.0, tl.float32)
    old = tl.minimum(end, stored)
    for base in range(begin, old, block_n):
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
    for base in range(tl.maximum(begin, stored), end, block_n):
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
        # Of the tiles that see a token, its own stores it.
        own = at >= stored + first
        tl.store(
            key_pool + kv_head * key_head_stride + (slot * key_stride)[None, :] + dims[:, None],
            new_keys,
            mask=key_mask & own[None, :],
        )
        tl.store(
            value_pool + kv_head * value_head_stride + (slot * value_stride)[:, None] + value_dims[None, :],
            new_values,
            mask=value_mask & own[:, None],
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
            fade = tl.exp(top - new_top)
            total = total * fade + tl.exp(sink - new_top)
            result *= fade[:, None]
        placed = live if starts is not None else pair // group < places
        tl.store(
            out + ((token * heads + head) * value_dim)[:, None] + value_dims[None, :],
            tl.where(live[:, None], result / tl.where(total > 0, total, 1.0)[:, None], 0.0),
            mask=placed[:, None] & (value_dims < value_dim)[None, :],
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


@triton.jit(do_not_specialize=["splits"])  # type: ignore[untyped-decorator, unused-ignore]
def _merge(
    partial: tl.tensor,
    logs: tl.tensor,
    sinks: tl.tensor,
    starts: tl.tensor,
    queries: tl.tensor,
    lengths: tl.tensor,
    out: tl.tensor,
    splits: tl.tensor,
    heads: tl.constexpr,
    value_dim: tl.constexpr,
    window: tl.constexpr,
    block_n: tl.constexpr,
    block_splits: tl.constexpr,
    block_value: tl.constexpr,
) -> None:
    """One query and head: the average of the splits that it sees, weighted by their share of the softmax."""
    row, offset, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    count = tl.load(queries + row)
    length = tl.load(lengths + row)
    position = length - count + offset
    live = (offset < count) & (position >= 0)
    if starts is not None:  # noqa: SIM102
        if not live:
            return
    span = _split_span(length, splits, block_n)
    split = tl.arange(0, block_splits)
    # Not `live & ...`: the interpreter broadcasts a scalar bool as int32, which Triton 3.9 refuses as a mask.
    seen = split * span <= tl.where(live, position, -1)
    if window is not None:
        seen = seen & ((split + 1) * span > position - window + 1)
    start = row * tl.num_programs(1) if starts is None else tl.load(starts + row)
    pair = (start.to(tl.int64) + offset) * heads + head
    index = pair * splits + split
    log = tl.load(logs + index, mask=seen & (split < splits), other=float("-inf"))
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
        mask=(seen & (split < splits))[:, None] & (value_dims < value_dim)[None, :],
        other=0.0,
    )
    tl.store(
        out + pair * value_dim + value_dims,
        tl.sum(parts * weights[:, None], 0) / tl.where(total > 0, total, 1.0),
        mask=value_dims < value_dim,
    )
