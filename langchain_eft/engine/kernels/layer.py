"""Kernels of a decoder layer's small operations, row by row. `models/layer_ops.py` defines what they compute.

Rows are float32 numbers side by side, whose count is a multiple of 16. Addresses and steps are in bytes, and
an address of 0 stands for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from langchain_eft.engine.kernels import simd
from langchain_eft.engine.kernels.compiler import inlined
from langchain_eft.engine.kernels.target import Target

STEP = simd.VECTOR_BYTES


def build(name: str, _: Target) -> Callable[..., None]:
    """The kernel `norm`, `rotate` or `silu_mul`."""
    kernels: dict[str, Callable[..., None]] = {"norm": norm, "rotate": rotate, "silu_mul": silu_mul}
    return kernels[name]


@inlined
def load(address: int) -> Any:
    """16 numbers."""
    return simd.load(address, 1, 0, "float32")


@inlined
def scale(squares: Any, size: int, eps: int) -> Any:
    """What a norm multiplies with, in all lanes, by the sums of squares in each."""
    mean = simd.first(simd.row_sum(squares, 1)) / np.float32(size)
    return simd.full(np.float32(1) / np.float32(math.sqrt(mean + simd.load_float(eps))), 1)


def norm(
    x: int,
    step: int,
    before: int,
    total: int,
    weight: int,
    after: int,
    out: int,
    rows: int,
    size: int,
    eps: int,
) -> None:
    """`total = x + before; out = total / rms(total) * weight + after`.

    The rows of `x` lie `step` bytes apart; those of the others, side by side.
    """
    for row in range(rows):
        of_x, at = x + row * step, row * size * 4
        squares = simd.zeros(1)
        for i in range(0, size * 4, STEP):
            numbers = load(of_x + i)
            if before:
                numbers = simd.add(numbers, load(before + at + i))
                simd.store(numbers, total + at + i, 0, 1)
            squares = simd.fold(squares, numbers, numbers)
        factor = scale(squares, size, eps)
        if before:
            of_x = total + at
        for i in range(0, size * 4, STEP):
            numbers = simd.multiply(simd.multiply(load(of_x + i), factor), load(weight + i))
            if after:
                numbers = simd.add(numbers, load(after + at + i))
            simd.store(numbers, out + at + i, 0, 1)


def rotate(
    states: int,
    step: int,
    cos: int,
    sin: int,
    rows: int,
    heads: int,
    key_heads: int,
    dim: int,
    query_weight: int,
    key_weight: int,
    eps: int,
) -> None:
    """Rotate the queries and keys of each row in place, behind a norm of each head if there are weights.

    `cos` and `sin` are factors of the states and of their exchanged halves, one row of `dim` for each token.
    """
    half = dim * 2
    for row in range(rows):
        of_cos, of_sin = cos + row * dim * 4, sin + row * dim * 4
        for head in range(heads + key_heads):
            x = states + row * step + head * dim * 4
            weight = query_weight if head < heads else key_weight
            if weight:
                squares = simd.zeros(1)
                for i in range(0, 2 * half, STEP):
                    squares = simd.fold(squares, load(x + i), load(x + i))
                factor = scale(squares, dim, eps)
                for i in range(0, 2 * half, STEP):
                    simd.store(
                        simd.multiply(simd.multiply(load(x + i), factor), load(weight + i)), x + i, 0, 1
                    )
            for i in range(0, half, STEP):
                j = half + i
                first, second = load(x + i), load(x + j)
                turned = simd.fold(simd.multiply(second, load(of_sin + i)), first, load(of_cos + i))
                simd.store(turned, x + i, 0, 1)
                turned = simd.fold(simd.multiply(first, load(of_sin + j)), second, load(of_cos + j))
                simd.store(turned, x + j, 0, 1)


def silu_mul(gate_up: int, out: int, rows: int, size: int) -> None:
    """`gate / (1 + exp(-gate)) * up`: rows of 2 * size to rows of size."""
    one = simd.full(np.float32(1), 1)
    for row in range(rows):
        gate = gate_up + row * size * 8
        for i in range(0, size * 4, STEP):
            numbers = load(gate + i)
            sigmoid = simd.add(one, simd.exp(simd.subtract(simd.zeros(1), numbers)))
            numbers = simd.multiply(simd.divide(numbers, sigmoid), load(gate + size * 4 + i))
            simd.store(numbers, out + row * size * 4 + i, 0, 1)
