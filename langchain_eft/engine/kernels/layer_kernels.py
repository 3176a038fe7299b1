"""Kernels for `layer`, row by row. Threads draw the rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from langchain_eft.engine.kernels import simd
from langchain_eft.engine.kernels.compiler import inlined
from langchain_eft.engine.kernels.layer import Arguments
from langchain_eft.engine.kernels.simd import VECTOR_BYTES
from langchain_eft.engine.kernels.structures import by_rows, reader
from langchain_eft.engine.kernels.target import LANES, Target

_read = reader(Arguments)


def build(name: str, _: Target) -> Callable[[int], None]:
    """A kernel: `norm`, `rotate`, `silu_mul`, `take` or `add`. Its argument is the address of `Arguments`."""
    of_row = {"norm": norm, "rotate": rotate, "silu_mul": silu_mul, "take": take, "add": add}[name]
    return by_rows(_read, of_row)


@inlined
def load(address: int, i: int, size: int) -> Any:
    """The numbers of a row from the i-th on: 16, or what is left and zeros."""
    at = address + 4 * i
    return simd.load(at, 1, VECTOR_BYTES, "float32") if size - i >= LANES else simd.load_some(at, size - i)


@inlined
def store(vector: Any, address: int, i: int, size: int) -> None:
    """Write the numbers of a row from the i-th on."""
    at = address + 4 * i
    if size - i >= LANES:
        simd.store(vector, at, VECTOR_BYTES, 1)
    else:
        simd.store_some(vector, at, size - i)


@inlined
def scale(squares: Any, size: int, eps: Any) -> Any:
    """What a norm multiplies with, in all lanes, by the sums of squares in each."""
    mean = simd.first(simd.row_sum(squares, 1)) / np.float32(size)
    return simd.full(np.float32(1) / np.float32(math.sqrt(mean + eps)), 1)


@inlined
def normalize(x: int, total: int, weight: int, after: int, out: int, size: int, eps: Any) -> None:
    """The norm of one row or head; see `layer.add_norm`."""
    squares = simd.zeros(1)
    for i in range(0, size, LANES):
        numbers = load(x, i, size)
        if total:
            numbers = simd.add(numbers, load(total, i, size))
            store(numbers, total, i, size)
        squares = simd.fold(squares, numbers, numbers)
    factor = scale(squares, size, eps)
    if total:
        x = total
    for i in range(0, size, LANES):
        numbers = simd.multiply(simd.multiply(load(x, i, size), factor), load(weight, i, size))
        if after:
            numbers = simd.add(numbers, load(after, i, size))
        store(numbers, out, i, size)


@inlined
def norm(call: Arguments, row: int) -> None:
    """See `layer.add_norm`."""
    x, out = call.x + row * call.x_step, call.y + row * call.y_step
    total, after = call.total + row * call.total_step, call.after + row * call.after_step
    normalize(x, total, call.weight, after, out, call.size, call.eps)


@inlined
def rotate(call: Arguments, row: int) -> None:
    """See `layer.add_rotation`."""
    dim, half, states = call.size, call.size // 2, call.x + row * call.x_step
    cos, sin = call.cos + row * call.cos_step, call.sin + row * call.sin_step
    for head in range(call.heads + call.key_heads):
        x = states + head * dim * 4
        weight = call.weight if head < call.heads else call.key_weight
        if weight:
            normalize(x, 0, weight, 0, x, dim, call.eps)
        for i in range(0, half, LANES):
            behind = 4 * half
            first, second = load(x, i, half), load(x + behind, i, half)
            turned = simd.multiply(second, load(sin, i, half))
            store(simd.fold(turned, first, load(cos, i, half)), x, i, half)
            turned = simd.multiply(first, load(sin + behind, i, half))
            store(simd.fold(turned, second, load(cos + behind, i, half)), x + behind, i, half)


@inlined
def silu_mul(call: Arguments, row: int) -> None:
    """See `layer.add_silu_mul`."""
    size, one = call.size, simd.full(np.float32(1), 1)
    gate, out = call.x + row * call.x_step, call.y + row * call.y_step
    for i in range(0, size, LANES):
        numbers = load(gate, i, size)
        sigmoid = simd.add(one, simd.exp(simd.subtract(simd.zeros(1), numbers)))
        up = load(gate + 4 * size, i, size)
        store(simd.multiply(simd.divide(numbers, sigmoid), up), out, i, size)


@inlined
def take(call: Arguments, row: int) -> None:
    """See `layer.add_take`."""
    x, out = call.x + simd.load_int64(call.index + 8 * row) * call.x_step, call.y + row * call.y_step
    for i in range(0, call.size, LANES):
        store(load(x, i, call.size), out, i, call.size)


@inlined
def add(call: Arguments, row: int) -> None:
    """See `layer.add_sum`."""
    number = simd.load_int64(call.index + 8 * row) if call.index else row
    x, out = call.x + row * call.x_step, call.y + number * call.y_step
    for i in range(0, call.size, LANES):
        store(simd.add(load(out, i, call.size), load(x, i, call.size)), out, i, call.size)
