"""The recurrence of `recurrence.scan` on a CPU: what its kernel reads, and the call."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.kernels.program import Extent, Program, Work
from langchain_eft.engine.kernels.store import Kernel, kernel
from langchain_eft.engine.kernels.target import LANES


class Arguments(Work):
    """Addresses, steps in bytes, and sizes.

    Attributes:
        slots: Address of the rows' slots, int64; the next four are such addresses too.
        starts: Places of their first new tokens on the packed axis.
        positions: Positions of those in the text.
        ends: Positions after the last ones.
        final: How many tokens the states shall contain.
        contained: How many they contain, by slot.
        states: Address of the states, [slots, heads, key_dim, value_dim].
        inputs: Address of what is known of the tokens behind those, [slots, kept].
        kept: How many tokens.
        record: Address of the new tokens: key, value, decay and rate of each.
        record_step: From a token to the next one, there and in `inputs`.
        query: Address of their queries, [N, key_heads, key_dim].
        out: Address of the results, [N, heads, value_dim].
        heads: Heads of a value.
        group: Heads that share a key.
        key_dim: Size of a key.
        value_dim: Size of a value.
        value_at: Where the value begins in a token's numbers.
        decay_at: Where the decay begins.
        decays: Numbers of it: 1 or `key_dim`.
        rate_at: Where the rate begins, or 0 if there is none.
        scratch: Address of memory for the threads.
        scratch_step: From a thread's memory to the next one's.
    """

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            "slots", "starts", "positions", "ends", "final", "contained", "states", "inputs", "kept",
            "record", "record_step", "query", "out", "heads", "group", "key_dim", "value_dim", "value_at",
            "decay_at", "decays", "rate_at", "scratch", "scratch_step",
        )
    )  # fmt: skip


class ScanRows(NamedTuple):
    """[R] int64, the numbers of the rows, as `Arguments` names them."""

    slots: Tensor
    starts: Tensor
    positions: Tensor
    ends: Tensor
    final: Tensor


def scan_rows(
    query: Tensor,
    record: Tensor,
    sizes: tuple[int, ...],
    heads: int,
    rows: ScanRows,
    memory: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Scan the rows, and write their states.

    Args:
        query: [N, key_heads, key_dim] float32.
        record: [N, size] float32, key, value, decay and rate of each token.
        sizes: Sizes of these four.
        heads: Heads of a value.
        rows: The rows.
        memory: The states, how many tokens they contain, and the inputs of those behind.

    Returns:
        [N, heads, value_dim] float32.
    """
    states, contained, inputs = memory
    _, key_heads, key_dim = query.shape
    query, record = query.contiguous(), record.contiguous()
    rows = ScanRows(*(numbers.contiguous() for numbers in rows))
    out = query.new_zeros(len(query), heads, states.shape[3])
    scratch = torch.empty(torch.get_num_threads(), key_dim * LANES)
    arguments = Arguments(
        **{name: numbers.data_ptr() for name, numbers in rows._asdict().items()},
        contained=contained.data_ptr(), states=states.data_ptr(), inputs=inputs.data_ptr(),
        kept=inputs.shape[1], record=record.data_ptr(), record_step=4 * record.shape[1],
        query=query.data_ptr(), out=out.data_ptr(), heads=heads, group=heads // key_heads, key_dim=key_dim,
        value_dim=states.shape[3], value_at=4 * sizes[0], decay_at=4 * sum(sizes[:2]),
        decays=sizes[2] // heads, rate_at=4 * sum(sizes[:3]) if sizes[3] else 0,
        scratch=scratch.data_ptr(), scratch_step=4 * key_dim * LANES,
    )  # fmt: skip
    program, extent = Program(), Extent(len(rows.slots), max(1, len(query) // max(1, len(rows.slots))))
    kept = query, record, rows, memory, out, scratch
    program.add(_kernel(), arguments, extent, 8 * states[0].numel(), *kept)
    program.run()
    return out


@cache
def _kernel() -> Kernel:
    return kernel(f"{__package__}.scan_kernel", "scan")
