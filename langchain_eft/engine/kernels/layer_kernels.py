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
from langchain_eft.engine.kernels.target import LANES, Target

_ROWS, _DRAWN, _EPS = Arguments.rows.offset, Arguments.drawn.offset, Arguments.eps.offset
_X, _Y, _TOTAL, _AFTER = (
    Arguments.x.offset,
    Arguments.y.offset,
    Arguments.total.offset,
    Arguments.after.offset,
)
_WEIGHT, _KEY_WEIGHT, _INDEX = Arguments.weight.offset, Arguments.key_weight.offset, Arguments.index.offset
_COS, _SIN, _SIZE = Arguments.cos.offset, Arguments.sin.offset, Arguments.size.offset
_HEADS, _KEY_HEADS = Arguments.heads.offset, Arguments.key_heads.offset


def build(name: str, _: Target) -> Callable[[int], None]:
    """A kernel: `norm`, `rotate`, `silu_mul`, `take` or `add`. Its argument is the address of `Arguments`."""
    of_row = {"norm": norm, "rotate": rotate, "silu_mul": silu_mul, "take": take, "add": add}[name]

    def kernel(arguments: int) -> None:
        rows = simd.load_int64(arguments + _ROWS)
        row = simd.atomic_add(arguments + _DRAWN, 1)
        while row < rows:
            of_row(arguments, row)
            row = simd.atomic_add(arguments + _DRAWN, 1)

    return kernel


@inlined
def number(arguments: int, offset: int) -> Any:
    """One of the arguments."""
    return simd.load_int64(arguments + offset)


@inlined
def row_of(arguments: int, tensor: int, row: Any) -> Any:
    """The address of a tensor's row, or 0 if there is no such tensor. Its step is behind its address."""
    address = number(arguments, tensor)
    return address + row * number(arguments, tensor + 8) if address else 0


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
def scale(squares: Any, size: int, eps: int) -> Any:
    """What a norm multiplies with, in all lanes, by the sums of squares in each."""
    mean = simd.first(simd.row_sum(squares, 1)) / np.float32(size)
    return simd.full(np.float32(1) / np.float32(math.sqrt(mean + simd.load_float(eps))), 1)


@inlined
def norm(arguments: int, row: int) -> None:
    """See `layer.add_norm`."""
    size, weight = number(arguments, _SIZE), number(arguments, _WEIGHT)
    x, out = row_of(arguments, _X, row), row_of(arguments, _Y, row)
    total = row_of(arguments, _TOTAL, row)
    after = row_of(arguments, _AFTER, row)
    squares = simd.zeros(1)
    for i in range(0, size, LANES):
        numbers = load(x, i, size)
        if total:
            numbers = simd.add(numbers, load(total, i, size))
            store(numbers, total, i, size)
        squares = simd.fold(squares, numbers, numbers)
    factor = scale(squares, size, arguments + _EPS)
    if total:
        x = total
    for i in range(0, size, LANES):
        numbers = simd.multiply(simd.multiply(load(x, i, size), factor), load(weight, i, size))
        if after:
            numbers = simd.add(numbers, load(after, i, size))
        store(numbers, out, i, size)


@inlined
def rotate(arguments: int, row: int) -> None:
    """See `layer.add_rotation`."""
    dim, heads, key_heads = (
        number(arguments, _SIZE),
        number(arguments, _HEADS),
        number(arguments, _KEY_HEADS),
    )
    states, half = row_of(arguments, _X, row), dim // 2
    cos, sin = row_of(arguments, _COS, row), row_of(arguments, _SIN, row)
    for head in range(heads + key_heads):
        x = states + head * dim * 4
        weight = number(arguments, _WEIGHT) if head < heads else number(arguments, _KEY_WEIGHT)
        if weight:
            squares = simd.zeros(1)
            for i in range(0, dim, LANES):
                squares = simd.fold(squares, load(x, i, dim), load(x, i, dim))
            factor = scale(squares, dim, arguments + _EPS)
            for i in range(0, dim, LANES):
                scaled = simd.multiply(simd.multiply(load(x, i, dim), factor), load(weight, i, dim))
                store(scaled, x, i, dim)
        for i in range(0, half, LANES):
            behind = 4 * half
            first, second = load(x, i, half), load(x + behind, i, half)
            turned = simd.multiply(second, load(sin, i, half))
            store(simd.fold(turned, first, load(cos, i, half)), x, i, half)
            turned = simd.multiply(first, load(sin + behind, i, half))
            store(simd.fold(turned, second, load(cos + behind, i, half)), x + behind, i, half)


@inlined
def silu_mul(arguments: int, row: int) -> None:
    """See `layer.add_silu_mul`."""
    size, one = number(arguments, _SIZE), simd.full(np.float32(1), 1)
    gate, out = row_of(arguments, _X, row), row_of(arguments, _Y, row)
    for i in range(0, size, LANES):
        numbers = load(gate, i, size)
        sigmoid = simd.add(one, simd.exp(simd.subtract(simd.zeros(1), numbers)))
        up = load(gate + 4 * size, i, size)
        store(simd.multiply(simd.divide(numbers, sigmoid), up), out, i, size)


@inlined
def take(arguments: int, row: int) -> None:
    """See `layer.add_take`."""
    size = number(arguments, _SIZE)
    x = row_of(arguments, _X, simd.load_int64(number(arguments, _INDEX) + 8 * row))
    out = row_of(arguments, _Y, row)
    for i in range(0, size, LANES):
        store(load(x, i, size), out, i, size)


@inlined
def add(arguments: int, row: int) -> None:
    """See `layer.add_sum`."""
    size, index = number(arguments, _SIZE), number(arguments, _INDEX)
    x = row_of(arguments, _X, row)
    out = row_of(arguments, _Y, simd.load_int64(index + 8 * row) if index else row)
    for i in range(0, size, LANES):
        store(simd.add(load(out, i, size), load(x, i, size)), out, i, size)
