"""The kernel of `scan`. Threads draw 16 columns of one head's state in one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from langchain_eft.engine.kernels import simd
from langchain_eft.engine.kernels.compiler import called, inlined
from langchain_eft.engine.kernels.layer_kernels import load, store
from langchain_eft.engine.kernels.scan import Arguments
from langchain_eft.engine.kernels.simd import VECTOR_BYTES
from langchain_eft.engine.kernels.structures import draw, enter, reader
from langchain_eft.engine.kernels.target import LANES, Target

_read = reader(Arguments)


def build(name: str, _: Target) -> Callable[[int], None]:
    """The kernel `scan`. Its argument is the address of `Arguments`."""
    return {"scan": _scan}[name]


def _scan(address: int) -> None:
    call = _read(address)
    blocks = (call.value_dim + LANES - 1) // LANES
    scratch = call.scratch + enter(address) * call.scratch_step
    units = call.rows * call.heads * blocks
    unit = draw(address, 1)
    while unit < units:
        scan_block(call, unit // (call.heads * blocks), unit // blocks % call.heads, unit % blocks, scratch)
        unit = draw(address, 1)


@called
def scan_block(call: Arguments, row: int, head: int, block: int, scratch: int) -> None:
    """Run the tokens of a row for some columns of a head's state."""
    position, end = number(call.positions, row), number(call.ends, row)
    if position >= end:
        return
    slot, final = number(call.slots, row), number(call.final, row)
    first = block * LANES
    step, size = 4 * call.value_dim, call.value_dim - first
    state = call.states + ((slot * call.heads + head) * call.key_dim * call.value_dim + first) * 4
    at = number(call.contained, slot) if position else 0
    if at == 0:
        for i in range(call.key_dim):
            store(simd.zeros(1), state + i * step, 0, size)
    past = call.inputs + slot * call.kept * call.record_step
    new = call.record + (number(call.starts, row) - position) * call.record_step
    query = call.query + (number(call.starts, row) - position) * (call.heads // call.group) * call.key_dim * 4
    out = call.out + ((number(call.starts, row) - position) * call.heads * call.value_dim) * 4
    while at < end:
        if at == final:  # from here on a later pass may run other tokens
            for i in range(call.key_dim):
                simd.store(load(state + i * step, 0, size), scratch + i * VECTOR_BYTES, VECTOR_BYTES, 1)
            state, step, size = scratch, VECTOR_BYTES, LANES
        if at < position:
            advance(call, past + at % call.kept * call.record_step, head, first, state, step, size, 0)
        else:
            read = query + (at * (call.heads // call.group) + head // call.group) * call.key_dim * 4
            result = advance(call, new + at * call.record_step, head, first, state, step, size, read)
            target = out + (at * call.heads + head) * call.value_dim * 4
            store(result, target + 4 * first, 0, call.value_dim - first)
        at += 1


@inlined
def advance(
    call: Arguments, token: int, head: int, first: int, state: int, step: int, size: int, query: int
) -> Any:
    """Move columns of a state on by a token. Returns what a query reads of them, if there is one."""
    key = token + head // call.group * call.key_dim * 4
    value = token + call.value_at + (head * call.value_dim + first) * 4
    decay = token + call.decay_at + head * call.decays * 4
    update, keep = load(value, 0, call.value_dim - first), simd.load_float(decay)
    if call.rate_at:
        known = simd.zeros(1)
        for i in range(call.key_dim):
            if call.decays > 1:
                keep = simd.load_float(decay + 4 * i)
            decayed = simd.multiply(load(state + i * step, 0, size), simd.full(keep, 1))
            store(decayed, state + i * step, 0, size)
            known = simd.fold(known, decayed, simd.full(simd.load_float(key + 4 * i), 1))
        rate = simd.full(simd.load_float(token + call.rate_at + 4 * head), 1)
        update, keep = simd.multiply(simd.subtract(update, known), rate), np.float32(1)
    result = simd.zeros(1)
    for i in range(call.key_dim):
        decayed = simd.multiply(load(state + i * step, 0, size), simd.full(keep, 1))
        moved = simd.fold(decayed, update, simd.full(simd.load_float(key + 4 * i), 1))
        store(moved, state + i * step, 0, size)
        if query:
            result = simd.fold(result, moved, simd.full(simd.load_float(query + 4 * i), 1))
    return result


@inlined
def number(address: int, i: int) -> Any:
    """The i-th int64 at an address."""
    return simd.load_int64(address + 8 * i)
