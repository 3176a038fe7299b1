"""Kernels for `packing`: one for each kind of blocks. Threads draw groups of 32 outputs.

https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h defines the blocks of files. A row's block
becomes one lane of a group's super-block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_eft.engine.kernels import simd
from langchain_eft.engine.kernels.block_formats import (
    EIGHT_BITS,
    EIGHT_BITS_IN_16,
    EIGHT_BITS_WITH_MINIMA,
    EIGHT_BITS_WITH_STEPS,
    FOUR_BITS,
    FOUR_BITS_WITH_STEPS,
)
from langchain_eft.engine.kernels.compiler import inlined
from langchain_eft.engine.kernels.formats import GROUP
from langchain_eft.engine.kernels.packing import Arguments
from langchain_eft.engine.kernels.structures import by_rows, reader
from langchain_eft.engine.kernels.target import Target

_read = reader(Arguments)

_MINIMA = 2 * GROUP
"""Where the minima of a super-block begin, behind the scales."""

_LOW, _HIGH = 0x0F0F0F0F, 0xF0F0F0F0
"""The lower and the upper 4 bits of four bytes."""


def build(name: str, _: Target) -> Callable[[int], None]:
    """The kernel of a kind of blocks, as `q4_k`. Its argument is the address of `packing.Arguments`."""
    block = {
        "q4_0": q4_0, "q4_1": q4_1, "q5_0": q5_0, "q5_1": q5_1, "q8_0": q8_0, "q4_k": q4_k, "q5_k": q5_k,
        "q6_k": q6_k,
    }[name]  # fmt: skip

    @inlined
    def group(call: Arguments, row: int) -> None:
        for number in range(call.blocks):
            for lane in range(GROUP):
                output = row * GROUP + lane
                x = call.x + output * call.x_step + number * call.x_block
                if output >= call.outputs:
                    x = call.zeros
                block(x, call.y + row * call.y_step + number * call.y_block, lane)

    return by_rows(_read, group)


@inlined
def half(x: int, y: int, lane: int) -> None:
    """Copy a number in 16 bits."""
    simd.store_uint16(simd.load_uint16(x), y + 2 * lane)


_FOUR, _EIGHT, _LIMITED = FOUR_BITS.first_block, EIGHT_BITS.first_block, EIGHT_BITS_WITH_MINIMA.first_block


@inlined
def words(x: int, y: int, lane: int) -> None:
    """Copy 32 integers of 4 bits."""
    for i in range(4):
        simd.store_int32(simd.load_int32(x + 4 * i), y + 4 * (i * GROUP + lane))


@inlined
def q4_0(x: int, y: int, lane: int) -> None:
    """A scale and integers. The minimum, -8 scales, is left out."""
    half(x, y, lane)
    words(x + 2, y + _FOUR, lane)


@inlined
def q4_1(x: int, y: int, lane: int) -> None:
    """A scale, a minimum and integers."""
    half(x, y, lane)
    half(x + 2, y + _MINIMA, lane)
    words(x + 4, y + _FOUR, lane)


@inlined
def five_bits(x: int, y: int, lane: int, less: int) -> None:
    """32 fifth bits, then 16 bytes of lower bits: integers, `less` so much."""
    fifth = simd.load_int32(x)
    for i in range(16):
        low = simd.load_uint8(x + 4 + i)
        simd.store_uint8((low & 15 | (fifth >> i & 1) << 4) - less, y + i * GROUP + lane)
        simd.store_uint8((low >> 4 | (fifth >> i + 16 & 1) << 4) - less, y + (i + 16) * GROUP + lane)


@inlined
def q5_0(x: int, y: int, lane: int) -> None:
    """A scale and integers, which are stored 16 larger."""
    half(x, y, lane)
    five_bits(x + 2, y + _EIGHT, lane, 16)


@inlined
def q5_1(x: int, y: int, lane: int) -> None:
    """A scale, a minimum and integers."""
    half(x, y, lane)
    half(x + 2, y + _MINIMA, lane)
    five_bits(x + 4, y + _LIMITED, lane, 0)


@inlined
def q8_0(x: int, y: int, lane: int) -> None:
    """A scale and integers."""
    half(x, y, lane)
    for i in range(32):
        simd.store_uint8(simd.load_uint8(x + 2 + i), y + _EIGHT + i * GROUP + lane)


def _in_eights(first_block: int, block_bytes: int) -> Any:
    """The factors of a super-block of 8 blocks; its minima are subtracted in files."""

    @inlined
    def factors(x: int, y: int, lane: int) -> None:
        half(x, y, lane)
        simd.store_uint16(simd.load_uint16(x + 2) ^ 0x8000, y + _MINIMA + 2 * lane)
        for i in range(4):
            scale, minimum, both = (
                simd.load_uint8(x + 4 + i),
                simd.load_uint8(x + 8 + i),
                simd.load_uint8(x + 12 + i),
            )
            at = y + first_block + i * block_bytes + lane
            simd.store_uint8(scale & 63, at)
            simd.store_uint8(minimum & 63, at + GROUP)
            at += 4 * block_bytes
            simd.store_uint8(both & 15 | scale >> 6 << 4, at)
            simd.store_uint8(both >> 4 | minimum >> 6 << 4, at + GROUP)

    return factors


_FOUR_IN_8, _FOUR_SIZE = FOUR_BITS_WITH_STEPS.first_block, FOUR_BITS_WITH_STEPS.block_bytes
_EIGHT_IN_8, _EIGHT_SIZE = EIGHT_BITS_WITH_STEPS.first_block, EIGHT_BITS_WITH_STEPS.block_bytes
_SIXTEENTHS, _SIXTEENTH_SIZE = EIGHT_BITS_IN_16.first_block, EIGHT_BITS_IN_16.block_bytes
_four_factors, _eight_factors = _in_eights(_FOUR_IN_8, _FOUR_SIZE), _in_eights(_EIGHT_IN_8, _EIGHT_SIZE)


@inlined
def q4_k(x: int, y: int, lane: int) -> None:
    """Factors and integers. A byte holds two that are 32 inputs apart, and is to hold two 16 apart."""
    _four_factors(x, y, lane)
    for pair in range(4):
        at = y + _FOUR_IN_8 + 2 * pair * _FOUR_SIZE + 2 * GROUP + 4 * lane
        for i in range(4):
            first = simd.load_int32(x + 16 + 32 * pair + 4 * i)
            second = simd.load_int32(x + 32 + 32 * pair + 4 * i)
            simd.store_int32(first & _LOW | (second & _LOW) << 4, at + 4 * i * GROUP)
            simd.store_int32(first >> 4 & _LOW | second & _HIGH, at + _FOUR_SIZE + 4 * i * GROUP)


@inlined
def q5_k(x: int, y: int, lane: int) -> None:
    """Factors, the fifth bits of 8 blocks in each of 32 bytes, and lower bits as in `q4_k`."""
    _eight_factors(x, y, lane)
    for i in range(32):
        fifth = simd.load_uint8(x + 16 + i)
        for pair in range(4):
            low = simd.load_uint8(x + 48 + 32 * pair + i)
            at = y + _EIGHT_IN_8 + 2 * pair * _EIGHT_SIZE + (2 + i) * GROUP + lane
            simd.store_uint8(low & 15 | (fifth >> 2 * pair & 1) << 4, at)
            simd.store_uint8(low >> 4 | (fifth >> 2 * pair + 1 & 1) << 4, at + _EIGHT_SIZE)


@inlined
def q6_k(x: int, y: int, lane: int) -> None:
    """Lower 4 bits of 2 x 128 integers, their upper 2 bits, a factor for each 16 of them, and a scale."""
    half(x + 208, y, lane)
    for block in range(16):
        step = simd.load_uint8(x + 192 + block)
        simd.store_uint8(step, y + _SIXTEENTHS + block * _SIXTEENTH_SIZE + lane)
        part, inner = block // 8, block % 8
        for i in range(16):
            j = 16 * inner + i
            low = simd.load_uint8(x + 64 * part + j % 64) >> 4 * (j // 64) & 15
            high = simd.load_uint8(x + 128 + 32 * part + j % 32) >> 2 * (j // 32) & 3
            at = y + _SIXTEENTHS + block * _SIXTEENTH_SIZE + (1 + i) * GROUP + lane
            simd.store_uint8((low | high << 4) - 32, at)
