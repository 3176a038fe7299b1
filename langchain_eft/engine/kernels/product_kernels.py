"""Kernels for `products`: one for each format, which multiplies rows with groups of outputs.

A sum has the same order in every tile: 32 products in sequence, then the blocks of 32 in sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_eft.engine.kernels import simd
from langchain_eft.engine.kernels.compiler import inlined
from langchain_eft.engine.kernels.formats import FORMATS, GROUP, Format, Int8
from langchain_eft.engine.kernels.products import Arguments
from langchain_eft.engine.kernels.simd import LANES, VECTOR_BYTES
from langchain_eft.engine.kernels.target import Target

_X, _WEIGHTS, _SCALES, _Y = (
    Arguments.x.offset,
    Arguments.weights.offset,
    Arguments.scales.offset,
    Arguments.y.offset,
)
_X_STEP, _Y_STEP, _ROWS = Arguments.x_step.offset, Arguments.y_step.offset, Arguments.rows.offset
_GROUP_BYTES, _INPUTS = Arguments.group_bytes.offset, Arguments.inputs.offset
_GROUPS, _SHARE, _DRAWN = Arguments.groups.offset, Arguments.share.offset, Arguments.drawn.offset

_VECTORS = GROUP // LANES
"""Vectors of a group."""

_BLOCK = 32
"""Inputs of a block."""

_AHEAD = 20480
"""Bytes between what is read and what memory is asked for: far enough that memory answers in time."""


def build(name: str, target: Target) -> Callable[[int], None]:
    """The kernel of a format. Its argument is the address of `products.Arguments`."""
    one = FORMATS[name]
    # Tiles fill the registers: 8 x 2 sums and 2 weights of 32 with AVX-512, else 6 sums of 8 vectors.
    vectors = 2 if target.has_avx512 else 1
    largest = 8 if target.has_avx512 else 6
    # AMD processors foresee a stream themselves; asking for it takes a fifth of the time of a single row.
    asks = 1 if not target.cpu.startswith("znver") else 4
    tiles = {rows: _tile(one, rows, vectors, ask=rows >= asks) for rows in (largest, 4, 2, 1)}
    first, second, third, fourth = tiles.values()
    vector_bytes = _vector_bytes(one)

    @inlined
    def multiply(arguments: int, begin: int, end: int) -> None:
        x = simd.load_int64(arguments + _X)
        weights = simd.load_int64(arguments + _WEIGHTS)
        scales = simd.load_int64(arguments + _SCALES)
        y = simd.load_int64(arguments + _Y)
        x_step = simd.load_int64(arguments + _X_STEP)
        y_step = simd.load_int64(arguments + _Y_STEP)
        rows = simd.load_int64(arguments + _ROWS)
        group_bytes = simd.load_int64(arguments + _GROUP_BYTES)
        inputs = simd.load_int64(arguments + _INPUTS)
        for vector in range(begin * _VECTORS, end * _VECTORS, vectors):
            w = weights + vector // _VECTORS * group_bytes + vector % _VECTORS * vector_bytes
            s = scales + vector * VECTOR_BYTES
            out = y + vector * VECTOR_BYTES
            row = 0
            while rows - row >= largest:
                first(x + row * x_step, w, s, out + row * y_step, x_step, y_step, inputs)
                row += largest
            while rows - row >= 4:
                second(x + row * x_step, w, s, out + row * y_step, x_step, y_step, inputs)
                row += 4
            if rows - row >= 2:
                third(x + row * x_step, w, s, out + row * y_step, x_step, y_step, inputs)
                row += 2
            if rows - row >= 1:
                fourth(x + row * x_step, w, s, out + row * y_step, x_step, y_step, inputs)

    def product(arguments: int) -> None:
        all_groups = simd.load_int64(arguments + _GROUPS)
        share = simd.load_int64(arguments + _SHARE)
        begin = simd.atomic_add(arguments + _DRAWN, share)
        while begin < all_groups:
            multiply(arguments, begin, min(begin + share, all_groups))
            begin = simd.atomic_add(arguments + _DRAWN, share)

    return product


def _vector_bytes(one: Format) -> int:
    """Size of the weights of 16 outputs and one input."""
    return LANES * (1 if isinstance(one, Int8) else one.dtype.itemsize)  # type: ignore[attr-defined]


def _tile(one: Format, rows: int, vectors: int, *, ask: bool) -> Any:
    """A part of a product.

    Args:
        one: The weight's format.
        rows: Number of rows.
        vectors: Number of vectors of outputs.
        ask: Whether to ask memory for what is read soon.
    """
    stored, step, count = one.name, _vector_bytes(one), rows * vectors
    width = _VECTORS * step
    size = _BLOCK * width
    scaled = isinstance(one, Int8)

    @inlined
    def tile(x: int, w: int, scales: int, y: int, x_step: int, y_step: int, inputs: int) -> None:
        total = simd.zeros(count)
        for _block in range(inputs // _BLOCK):
            if ask:
                simd.prefetch(w + _AHEAD, size)
            part = simd.zeros(count)
            for _i in range(0, _BLOCK, 4):
                part = simd.outer(part, simd.load(w, vectors, step, stored), x, x_step)
                part = simd.outer(part, simd.load(w + width, vectors, step, stored), x + 4, x_step)
                part = simd.outer(part, simd.load(w + 2 * width, vectors, step, stored), x + 8, x_step)
                part = simd.outer(part, simd.load(w + 3 * width, vectors, step, stored), x + 12, x_step)
                w += 4 * width
                x += 16
            total = simd.add(total, part)
        part = simd.zeros(count)
        for i in range(inputs % _BLOCK):
            part = simd.outer(part, simd.load(w + i * width, vectors, step, stored), x + 4 * i, x_step)
        total = simd.add(total, part)
        if scaled:
            total = simd.fold(simd.zeros(count), simd.load(scales, vectors, VECTOR_BYTES, "float32"), total)
        simd.store(total, y, y_step, rows)

    return tile
