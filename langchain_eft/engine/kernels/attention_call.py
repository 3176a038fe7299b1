"""What the attention kernels read: the numbers of a call, and how its work and memory are divided."""

from __future__ import annotations

import ctypes

from langchain_eft.engine.kernels.program import Work
from langchain_eft.engine.kernels.target import LANES

SEGMENT = 8 * LANES
"""Positions of a segment of the online softmax."""

RING = 2 * SEGMENT // LANES
"""Groups of 16 positions whose addresses a unit of work knows at once: a segment's and the next one's."""

SIGHT = 12
"""Bytes of what a pair sees: the first position and the one after the last, int32, and a sink, float32."""

_MOST_PAIRS = 64
"""Pairs of a query and a head in a unit of work, unless a single query has more heads."""

_TILE_ROWS = 8
"""The last tile of a unit may be so large, whatever number of pairs is left."""


class Rows(ctypes.Structure):
    """The rows of a batch: addresses and sizes, which all layers share. See `attention.rows.PagedRows`.

    Attributes:
        table: Address of the rows' block tables, int32.
        starts: Address of the rows' first places on the packed axis, int32, or 0.
        queries: Address of the rows' numbers of queries, int32.
        lengths: Address of the rows' lengths, int32.
        max_queries: Most queries of a row.
        block_size: Positions of a block.
        table_step: Bytes from a row's table to the next one's.
    """

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("table", "starts", "queries", "lengths", "max_queries", "block_size", "table_step")
    )


class Arguments(Work):
    """One layer: addresses, sizes, steps in bytes, and features. What there is none of is 0.

    Attributes:
        of_rows: Address of the `Rows`.
        query: Address of the queries, [N, heads, dim].
        keys: Address of the new keys, [N, kv_heads, dim].
        values: Address of the new values, [N, kv_heads, value_dim].
        pool: Address of the pool, [tiles, kv_heads]: 16 keys as [dim, 16], then values as [16, value_dim].
        out: Address of the results, [N, heads, value_dim], contiguous.
        sinks: Address of the sinks, [heads].
        heads: Query heads.
        group: Query heads of a key head.
        dim: Size of a query and of a key.
        value_dim: Size of a value.
        query_step: From a token's queries to the next one's.
        query_head_step: From a head's queries to the next one's.
        key_step: From a token's keys to the next one's.
        key_head_step: From a head's keys to the next one's.
        value_step: From a token's values to the next one's.
        value_head_step: From a head's values to the next one's.
        window: Positions that a query attends to, its own included.
        at_once: Queries of a unit of work.
        scratch: Address of memory for the threads.
        scratch_step: From a thread's memory to the next one's.
        scaling: Factor on the scores.
        softcap: Bound on the scores.
    """

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "of_rows", "query", "keys", "values", "pool", "out", "sinks", "heads", "group", "dim",
                "value_dim", "query_step", "query_head_step", "key_step", "key_head_step", "value_step",
                "value_head_step", "window", "at_once", "scratch", "scratch_step",
            )
        ),
        ("scaling", ctypes.c_float),
        ("softcap", ctypes.c_float),
    )  # fmt: skip


def queries_at_once(group: int) -> int:
    """Queries of a unit of work.

    Args:
        group: Query heads of a key head.
    """
    return max(1, _MOST_PAIRS // group)


def scratch_bytes(group: int, dim: int, value_dim: int) -> int:
    """Bytes that a thread needs, as `attention.Unit` divides them; lines of a cache belong to one thread.

    Args:
        group: Query heads of a key head.
        dim: Size of a query and of a key.
        value_dim: Size of a value.
    """
    pairs = queries_at_once(group) * group + _TILE_ROWS - 1
    columns = value_dim + LANES - 1
    of_pairs = 4 * pairs * (columns + 2 * LANES + dim) + pairs * SIGHT
    size = of_pairs + 4 * _TILE_ROWS * SEGMENT + RING * (8 + 4 * LANES * (dim + value_dim))
    return -(-size // 64) * 64
