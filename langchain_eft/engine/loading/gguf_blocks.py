"""The blocks of GGUF files as the fields that kernels take. No digit is lost.

https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h defines the blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.block_formats import (
    EIGHT_BITS,
    EIGHT_BITS_IN_16,
    EIGHT_BITS_WITH_MINIMA,
    EIGHT_BITS_WITH_STEPS,
    FOUR_BITS,
    FOUR_BITS_WITH_STEPS,
    BlockFormat,
)
from langchain_eft.engine.kernels.formats import GROUP, Packed

_Fields = dict[str, Tensor]

_PIECE = 1 << 20
"""Bytes that are packed at a time: what is made of them stays in the processor's cache."""


def pack_blocks(rows: Tensor, kind: Kind, arena: Arena) -> Packed:
    """Pack a weight for the kernels.

    Args:
        rows: [out, bytes of a row] uint8, as they are in the file.
        kind: One of `BLOCKS`.
        arena: Where the weight goes.

    Raises:
        ValueError: A factor is NaN or infinite.
    """
    (one, fields_of), (inputs, nbytes) = BLOCKS[kind], GGML_QUANT_SIZES[kind]
    packed = one.room(len(rows), rows.shape[1] // nbytes * inputs, arena)
    groups = max(1, _PIECE // (GROUP * rows.shape[1]))
    for piece, data in zip(torch.split(rows, groups * GROUP), torch.split(packed.data, groups), strict=True):
        fields = fields_of(_split(piece, nbytes))
        if not all(field.isfinite().all() for field in fields.values() if field.is_floating_point()):
            raise ValueError("a weight holds NaN or infinite values")
        one.fill(data, fields)
    return packed


def _q4_0(blocks: Tensor) -> _Fields:
    scales = _halves(blocks[..., :2])
    return {"scales": scales, "minima": -8 * scales, "integers": _ints(blocks[..., 2:])}


def _q4_1(blocks: Tensor) -> _Fields:
    halves = _halves(blocks[..., :4])
    return {"scales": halves[..., :1], "minima": halves[..., 1:], "integers": _ints(blocks[..., 4:])}


def _q5_0(blocks: Tensor) -> _Fields:
    return {"scales": _halves(blocks[..., :2]), "integers": _five_bits(blocks[..., 2:]) - 16}


def _q5_1(blocks: Tensor) -> _Fields:
    halves = _halves(blocks[..., :4])
    return {"scales": halves[..., :1], "minima": halves[..., 1:], "integers": _five_bits(blocks[..., 4:])}


def _q8_0(blocks: Tensor) -> _Fields:
    return {"scales": _halves(blocks[..., :2]), "integers": blocks[..., 2:].view(torch.int8)}


def _q4_k(blocks: Tensor) -> _Fields:
    # Bytes hold two numbers that are 32 inputs apart; those of a block of 32 are brought together.
    pairs = torch.stack(_nibbles(_split(blocks[..., 16:], 32)), -2)
    low, high = _split(pairs, 16).unbind(-2)
    return _factors(blocks) | {"integers": _ints((low | high << 4).flatten(-3))}


def _q5_k(blocks: Tensor) -> _Fields:
    low = torch.stack(_nibbles(_split(blocks[..., 48:], 32)), -2).flatten(-3, -2)
    high = torch.stack([blocks[..., 16:48] >> bit & 1 for bit in range(8)], -2)
    return _factors(blocks) | {"integers": (low | high << 4).flatten(-2).view(torch.int8)}


def _q6_k(blocks: Tensor) -> _Fields:
    first, second = _nibbles(_split(blocks[..., :128], 64))
    low = torch.cat((first, second), -1)
    high = torch.cat([_split(blocks[..., 128:192], 32) >> bits & 3 for bits in (0, 2, 4, 6)], -1)
    integers = (low | high << 4).flatten(-2).view(torch.int8) - 32
    steps = blocks[..., 192:208].view(torch.int8)
    return {"scales": _halves(blocks[..., 208:]), "scale_steps": steps, "integers": integers}


def _factors(blocks: Tensor) -> _Fields:
    """The scales and minima of Q4_K and Q5_K; a minimum is subtracted there."""
    halves = _halves(blocks[..., :4])
    first, second, third = _split(blocks[..., 4:16], 4).unbind(-2)
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), -1)
    minima = torch.cat((second & 63, third >> 4 | second >> 6 << 4), -1)
    return {
        "scales": halves[..., :1],
        "minima": -halves[..., 1:],
        "scale_steps": scales.view(torch.int8),
        "minimum_steps": minima.view(torch.int8),
    }


def _five_bits(blocks: Tensor) -> Tensor:
    """[..., 4 + 16] bytes, one bit and four bits of each number, to [..., 32] int8."""
    high = torch.stack([blocks[..., :4] >> bit & 1 for bit in range(8)], -1).flatten(-2)
    low = torch.cat(_nibbles(blocks[..., 4:]), -1)
    return (low | high << 4).view(torch.int8)


def _split(blocks: Tensor, size: int) -> Tensor:
    """[..., n] to [..., n / size, size]."""
    return blocks.view(*blocks.shape[:-1], -1, size)


def _nibbles(blocks: Tensor) -> tuple[Tensor, Tensor]:
    return blocks & 15, blocks >> 4


def _halves(blocks: Tensor) -> Tensor:
    return blocks.contiguous().view(torch.float16)


def _ints(blocks: Tensor) -> Tensor:
    return blocks.contiguous().view(torch.int32)


BLOCKS: dict[Kind, tuple[BlockFormat, Callable[[Tensor], _Fields]]] = {
    Kind.Q4_0: (FOUR_BITS, _q4_0),
    Kind.Q4_1: (FOUR_BITS, _q4_1),
    Kind.Q5_0: (EIGHT_BITS, _q5_0),
    Kind.Q5_1: (EIGHT_BITS_WITH_MINIMA, _q5_1),
    Kind.Q8_0: (EIGHT_BITS, _q8_0),
    Kind.Q4_K: (FOUR_BITS_WITH_STEPS, _q4_k),
    Kind.Q5_K: (EIGHT_BITS_WITH_STEPS, _q5_k),
    Kind.Q6_K: (EIGHT_BITS_IN_16, _q6_k),
}
"""How the kernels take each kind of blocks."""
