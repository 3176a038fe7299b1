"""Kernels for `products`: one for each format, which multiplies rows with groups of outputs.

A sum has the same order in every tile: 32 or 16 products in sequence, then the blocks in sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_eft.engine.kernels import lanes, simd
from langchain_eft.engine.kernels.block_formats import BLOCK_FORMATS, BlockFormat
from langchain_eft.engine.kernels.compiler import inlined
from langchain_eft.engine.kernels.formats import GROUP, NUMBER_FORMATS, Format, Int8
from langchain_eft.engine.kernels.products import SUMMED, SUMS, Arguments
from langchain_eft.engine.kernels.simd import VECTOR_BYTES
from langchain_eft.engine.kernels.structures import by_rows, draw, reader
from langchain_eft.engine.kernels.target import LANES, Target

FORMATS: dict[str, Format] = {one.name: one for one in (*NUMBER_FORMATS, *BLOCK_FORMATS)}
"""All formats, by their names."""

_read = reader(Arguments)

_SHARES = 4
"""Shares of a thread: so the others do the work of one that the system interrupts."""

_VECTORS = GROUP // LANES
"""Vectors of a group."""

_BLOCK = 32
"""Inputs of a block of a format without blocks."""

_AHEAD = 20480
"""Bytes between what is read and what memory is asked for: far enough that memory answers in time."""


def build(name: str, target: Target) -> Callable[[int], None]:
    """The kernel of a format, or of block sums. Its argument is the address of `products.Arguments`."""
    if name == SUMS:
        return by_rows(_read, _block_sums)
    one = FORMATS[name]
    # Tiles fill the registers: 8 x 2 sums and 2 weights of 32 with AVX-512, else 6 sums of 8 vectors.
    vectors = 2 if target.has_avx512 else 1
    largest = 8 if target.has_avx512 else 6
    # AMD processors foresee a stream themselves; asking for it takes a fifth of the time of a single row.
    asks = 1 if not target.cpu.startswith("znver") else 4
    by_table = target.has_avx512
    tiles = {
        rows: _tile(one, rows, vectors, ask=rows >= asks, by_table=by_table) for rows in (largest, 4, 2, 1)
    }
    first, second, third, fourth = tiles.values()

    @inlined
    def multiply(arguments: int, begin: int, end: int) -> None:
        call = _read(arguments)
        x_step, sum_step, y_step, inputs = call.x_step, call.sum_step, call.y_step, call.inputs
        for vector in range(begin * _VECTORS, end * _VECTORS, vectors):
            w = call.weights + vector // _VECTORS * call.group_bytes
            half = vector % _VECTORS
            s = call.scales + vector * VECTOR_BYTES
            out = call.y + vector * VECTOR_BYTES
            at = call.x
            sum_at = call.sums
            row = 0
            while call.rows - row >= largest:
                first(at, sum_at, w, half, s, out, x_step, sum_step, y_step, inputs)
                row += largest
                at += largest * x_step
                sum_at += largest * sum_step
                out += largest * y_step
            while call.rows - row >= 4:
                second(at, sum_at, w, half, s, out, x_step, sum_step, y_step, inputs)
                row += 4
                at += 4 * x_step
                sum_at += 4 * sum_step
                out += 4 * y_step
            if call.rows - row >= 2:
                third(at, sum_at, w, half, s, out, x_step, sum_step, y_step, inputs)
                row += 2
                at += 2 * x_step
                sum_at += 2 * sum_step
                out += 2 * y_step
            if call.rows - row >= 1:
                fourth(at, sum_at, w, half, s, out, x_step, sum_step, y_step, inputs)

    def product(arguments: int) -> None:
        call = _read(arguments)
        share = -(-call.groups // (_SHARES * call.threads)) if call.threads > 1 else call.groups
        begin = draw(arguments, share)
        while begin < call.groups:
            multiply(arguments, begin, min(begin + share, call.groups))
            begin = draw(arguments, share)

    return product


@inlined
def _block_sums(call: Arguments, row: int) -> None:
    """The sum of each 32 inputs of a row."""
    for block in range(call.inputs // SUMMED):
        at = call.x + row * call.x_step + block * 2 * VECTOR_BYTES
        both = simd.load(at, 2, VECTOR_BYTES, "float32")
        simd.store_float(simd.first(simd.row_sum(both, 1)), call.sums + row * call.sum_step + 4 * block)


def _tile(one: Format, rows: int, vectors: int, *, ask: bool, by_table: bool) -> Any:
    """A part of a product.

    Args:
        one: The weight's format.
        rows: Number of rows.
        vectors: Number of vectors of outputs.
        ask: Whether to ask memory for what is read soon.
        by_table: See `lanes.nibble`.
    """
    count, scaled = rows * vectors, isinstance(one, Int8)
    if isinstance(one, BlockFormat):
        total_of = _of_blocks(one, count, vectors, ask=ask, by_table=by_table)
    else:
        total_of = _of_numbers(one, count, vectors, ask=ask)

    @inlined
    def tile(
        x: int, sums: int, w: int, half: int, scales: int, y: int,
        x_step: int, sum_step: int, y_step: int, inputs: int,
    ) -> None:  # fmt: skip
        total = total_of(x, sums, w, half, x_step, sum_step, inputs)
        if scaled:
            total = simd.fold(simd.zeros(count), simd.load(scales, vectors, VECTOR_BYTES, "float32"), total)
        simd.store(total, y, y_step, rows)

    return tile


def _of_numbers(one: Format, count: int, vectors: int, *, ask: bool) -> Any:
    """The sums of a tile whose weights are numbers: floating point numbers, or integers of 8 bits."""
    stored, vector_bytes = one.name, lanes.vector_bytes(one.name)
    width = _VECTORS * vector_bytes
    size = _BLOCK * width
    at_once = _at_once(count)

    @inlined
    def total_of(  # the arguments are those for blocks
        x: int,
        sums: int,  # noqa: ARG001
        w: int,
        half: int,
        x_step: int,
        sum_step: int,  # noqa: ARG001
        inputs: int,
    ) -> Any:
        w += half * vector_bytes
        total = simd.zeros(count)
        for _block in range(inputs // _BLOCK):
            if ask:
                simd.prefetch(w + _AHEAD, size)
            part = simd.zeros(count)
            for _i in range(0, _BLOCK, at_once):
                part = simd.products(part, w, vectors, width, stored, x, x_step, at_once)
                w += at_once * width
                x += 4 * at_once
            total = simd.add(total, part)
        part = simd.zeros(count)
        for _i in range(inputs % _BLOCK):
            part = simd.products(part, w, vectors, width, stored, x, x_step, 1)
            w += width
            x += 4
        return simd.add(total, part)

    return total_of


def _of_blocks(one: BlockFormat, count: int, vectors: int, *, ask: bool, by_table: bool) -> Any:
    """The sums of a tile whose weights are blocks of integers."""
    multiply_integers = _integers(one, count, vectors, by_table=by_table)
    size, blocks, block_inputs = one.nbytes, one.blocks, one.inputs
    first_block, block_bytes = one.first_block, one.block_bytes
    at = {name: field.first for name, field in {**one.factors, **one.fields}.items()}
    minima_at, scale_step_at, minimum_step_at = (
        at.get(name, 0) for name in ("minima", "scale_steps", "minimum_steps")
    )
    integers_at, vector_bytes = at["integers"], VECTOR_BYTES if one.bits == 4 else LANES
    minima, stepped = one.minima, blocks > 1
    half_floats = 2 * LANES

    @inlined
    def total_of(x: int, sums: int, w: int, half: int, x_step: int, sum_step: int, inputs: int) -> Any:
        total = simd.zeros(count)
        for _super_block in range(inputs // (blocks * block_inputs)):
            if ask:
                simd.prefetch(w + _AHEAD, size)
            scale = scales = simd.load(w + half * half_floats, vectors, half_floats, "float16")
            if minima:
                low = lows = simd.load(w + minima_at + half * half_floats, vectors, half_floats, "float16")
            block = w + first_block
            for _block in range(blocks):
                q = block + integers_at + half * vector_bytes
                part = multiply_integers(simd.zeros(count), q, x, x_step)
                if stepped:
                    steps = simd.load(block + scale_step_at + half * LANES, vectors, LANES, "int8")
                    scale = simd.multiply(scales, steps)
                total = simd.fold(total, scale, part)
                if minima:
                    if stepped:
                        steps = simd.load(block + minimum_step_at + half * LANES, vectors, LANES, "int8")
                        low = simd.multiply(lows, steps)
                    total = simd.outer(total, low, sums, sum_step)
                    sums += 4
                block += block_bytes
                x += 4 * block_inputs
            w += size
        return total

    return total_of


def _integers(one: BlockFormat, count: int, vectors: int, *, by_table: bool) -> Any:
    """The products with the integers of a block, added to a tile."""
    inputs, at_once = one.inputs, min(one.inputs, _at_once(count))
    nibbles_at_once = at_once // 8

    @inlined
    def four_bits(part: Any, q: int, x: int, x_step: int) -> Any:
        for _i in range(0, inputs, at_once):
            part = simd.nibble_products(
                part, q, vectors, _VECTORS * VECTOR_BYTES, by_table, x, x_step, nibbles_at_once
            )
            q += nibbles_at_once * _VECTORS * VECTOR_BYTES
            x += 16 * nibbles_at_once
        return part

    @inlined
    def eight_bits(part: Any, q: int, x: int, x_step: int) -> Any:
        for _i in range(0, inputs, at_once):
            part = simd.products(part, q, vectors, GROUP, "int8", x, x_step, at_once)
            q += at_once * GROUP
            x += 4 * at_once
        return part

    return four_bits if one.bits == 4 else eight_bits


def _at_once(count: int) -> int:
    """How many inputs a tile of vectors multiplies without a jump. Small tiles wait for each jump."""
    return 32 if count <= 4 else 8
