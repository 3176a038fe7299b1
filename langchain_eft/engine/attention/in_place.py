"""Attention on a CPU over paged keys and values in place, by the kernels of `kernels.attention`.

The results are those of `gathered` in float32, and a query's are the same bit for bit, whatever is computed
beside it. The kernels read the memory of a layer as tiles of 16 slots, so all passes over a pool have to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.kernels.attention_call import Arguments, Rows, queries_at_once, scratch_bytes
from langchain_eft.engine.kernels.program import Extent, Program
from langchain_eft.engine.kernels.store import kernel
from langchain_eft.engine.kernels.target import can_compile

_kernel = cache(partial(kernel, "langchain_eft.engine.kernels.attention"))


def attends_in_place(query: Tensor) -> bool:
    """Whether the kernels compute attention for such queries."""
    return query.device.type == "cpu" and query.dtype == torch.float32 and can_compile()


def attend_in_place(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    memory: Tensor,
    groups: Sequence[PagedRows],
    out: Tensor,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> None:
    """Store the new keys and values of a packed batch, then attend. Must equal `gathered.attend_gathered`.

    The arguments are those of `attend_gathered`; `memory` is a layer of a `KVPool`.
    """
    program, of_groups = Program(), [RowGroup() for _ in groups]
    query, keys, values = map(_by_head, (query, keys, values))
    add_attention(
        program, query, keys, values, memory, of_groups, out, attention_scratch(query, keys, values),
        scaling=scaling, sliding_window=sliding_window, softcap=softcap, sinks=sinks,
    )  # fmt: skip
    for group, rows in zip(of_groups, groups, strict=True):
        group.set(rows)
    program.run()


class RowGroup:
    """A group of rows as kernels read it. The rows may change between runs of a program."""

    def __init__(self) -> None:
        self.rows, self.extent = Rows(), Extent()
        self._kept: PagedRows | None = None  # whose memory kernels read

    def set(self, rows: PagedRows | None) -> None:
        """Say which rows the group has in the next run."""
        self._kept, self.extent.rows = rows, 0
        if rows is not None:
            table, of_group = rows.block_table, self.rows
            self.extent.rows, self.extent.length = len(rows.lengths), rows.max_length
            of_group.table, of_group.table_step = table.data_ptr(), 4 * table.stride(0)
            of_group.starts = 0 if rows.starts is None else rows.starts.data_ptr()
            of_group.queries, of_group.lengths = rows.queries.data_ptr(), rows.lengths.data_ptr()
            of_group.max_queries, of_group.block_size = rows.max_queries, rows.block_size


def attention_scratch(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Memory for torch's number of threads, for queries, keys and values [N, heads, size]."""
    size = scratch_bytes(query.shape[1] // keys.shape[1], query.shape[2], values.shape[2])
    return torch.empty(torch.get_num_threads(), size, dtype=torch.uint8)


def add_attention(
    program: Program,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    memory: Tensor,
    groups: Sequence[RowGroup],
    out: Tensor,
    scratch: Tensor,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> None:
    """Add what `attend_in_place` does to a program. The numbers of a head lie side by side."""
    sinks = None if sinks is None else sinks.float()
    heads, dim, value_dim = *query.shape[1:], values.shape[2]
    group = heads // keys.shape[1]
    layer: Mapping[str, Any] = {
        "query": query.data_ptr(),
        "keys": keys.data_ptr(),
        "values": values.data_ptr(),
        "pool": memory.data_ptr(),
        "out": out.data_ptr(),
        "sinks": 0 if sinks is None else sinks.data_ptr(),
        "heads": heads,
        "group": group,
        "dim": dim,
        "value_dim": value_dim,
        "query_step": 4 * query.stride(0),
        "query_head_step": 4 * query.stride(1),
        "key_step": 4 * keys.stride(0),
        "key_head_step": 4 * keys.stride(1),
        "value_step": 4 * values.stride(0),
        "value_head_step": 4 * values.stride(1),
        "window": sliding_window or 0,
        "at_once": queries_at_once(group),
        "scratch": scratch.data_ptr(),
        "scratch_step": scratch.stride(0),
        "scaling": scaling,
        "softcap": softcap or 0.0,
    }
    calls = [Arguments(of_rows=ctypes.addressof(of_rows.rows), **layer) for of_rows in groups]
    costs = {"store_rows": 0, "attend": heads * (dim + value_dim)}
    for name, cost in costs.items():  # rows may read what others store
        for of_rows, call in zip(groups, calls, strict=True):
            kept = of_rows, query, keys, values, memory, out, sinks, scratch
            program.add(_kernel(name), call, of_rows.extent, cost, *kept)


def _by_head(tokens: Tensor) -> Tensor:
    """[N, heads, size] with the numbers of a head side by side."""
    return tokens if tokens.stride(-1) == 1 else tokens.contiguous()
