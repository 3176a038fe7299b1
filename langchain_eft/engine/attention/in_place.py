"""Attention on a CPU over paged keys and values in place, by the kernels of `kernels.attention`.

The results are those of `gathered` in float32, and a query's are the same bit for bit, whatever is computed
beside it. The kernels read the memory of a layer as tiles of 16 slots, so all passes over a pool have to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.kernels.attention_call import Call, queries_at_once, scratch_bytes
from langchain_eft.engine.kernels.store import Kernel, kernel
from langchain_eft.engine.kernels.target import Target, can_compile, host
from langchain_eft.engine.kernels.threads import workers

_LEAST_SHARED = 1 << 18
"""Products of a query and a row's context for which it is worth to wake a worker: some 20 us of work."""


def attends_in_place(query: Tensor) -> bool:
    """Whether the kernels compute attention for such queries."""
    return query.device.type == "cpu" and query.dtype == torch.float32 and can_compile()


@torch.compiler.disable  # type: ignore[untyped-decorator]
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
    query, keys, values = map(_by_head, (query, keys, values))
    sinks = None if sinks is None else sinks.float()
    heads, (kv_heads, value_dim), dim = query.shape[1], values.shape[1:], query.shape[2]
    group = heads // kv_heads
    threads = torch.get_num_threads()
    scratch = torch.empty(threads, scratch_bytes(group, dim, value_dim), dtype=torch.uint8)
    calls = [
        Call(
            query=query.data_ptr(),
            keys=keys.data_ptr(),
            values=values.data_ptr(),
            pool=memory.data_ptr(),
            out=out.data_ptr(),
            table=rows.block_table.data_ptr(),
            starts=0 if rows.starts is None else rows.starts.data_ptr(),
            queries=rows.queries.data_ptr(),
            lengths=rows.lengths.data_ptr(),
            sinks=0 if sinks is None else sinks.data_ptr(),
            rows=len(rows.lengths),
            max_queries=rows.max_queries,
            block_size=rows.block_size,
            table_step=4 * rows.block_table.stride(0),
            heads=heads,
            group=group,
            dim=dim,
            value_dim=value_dim,
            query_step=4 * query.stride(0),
            query_head_step=4 * query.stride(1),
            key_step=4 * keys.stride(0),
            key_head_step=4 * keys.stride(1),
            value_step=4 * values.stride(0),
            value_head_step=4 * values.stride(1),
            window=sliding_window or 0,
            at_once=queries_at_once(group),
            scratch=scratch.data_ptr(),
            scratch_step=scratch.stride(0),
            scaling=scaling,
            softcap=softcap or 0.0,
        )
        for rows in groups
    ]
    store_rows, attend = _kernels(host())
    buffers = [ctypes.create_string_buffer(call.packed()) for call in calls]
    for buffer in buffers:  # rows may read what others store
        store_rows(ctypes.addressof(buffer))
    for buffer, rows in zip(buffers, groups, strict=True):
        work = len(rows.lengths) * rows.max_length * heads * (dim + value_dim)
        if threads == 1 or work < _LEAST_SHARED:
            attend(ctypes.addressof(buffer))
        else:
            workers().run(attend, ctypes.addressof(buffer), threads)


@cache
def _kernels(target: Target) -> tuple[Kernel, Kernel]:
    room = "langchain_eft.engine.kernels.attention"
    return kernel(room, "store_rows", 1, target=target), kernel(room, "attend", 1, target=target)


def _by_head(tokens: Tensor) -> Tensor:
    """[N, heads, size] with the numbers of a head side by side."""
    return tokens if tokens.stride(-1) == 1 else tokens.contiguous()
