"""Weights in blocks, as GGUF files have them: integers, and factors for every 16 or 32 inputs of an output.

A number is `scale * integer + minimum`. Where blocks are many to a super-block, a block's scale and minimum
are integers of 8 bits themselves, times the super-block's scale and minimum.
https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h defines the blocks of files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.formats import GROUP, Format, Packed


@dataclass(frozen=True)
class BlockFormat(Format):
    """A way to pack blocks. A super-block of a group of 32 outputs begins with its factors; blocks follow.

    Attributes:
        name: Its name.
        bits: 4 or 8, of an integer.
        inputs: Inputs of a block.
        blocks: Blocks of a super-block.
        minima: Whether there are minima.
    """

    name: str
    bits: int
    inputs: int = 32
    blocks: int = 1
    minima: bool = False

    @cached_property
    def factors(self) -> dict[str, Field]:
        """The scale of a super-block, and its minimum, in the beginning of its bytes."""
        return _fields({"scales": (1, torch.float16), "minima": (int(self.minima), torch.float16)})

    @cached_property
    def fields(self) -> dict[str, Field]:
        """What a block has, in its bytes: its own factors, if blocks are many, and the integers.

        A vector of integers is one input with 8 bits, or 8 inputs with 4, see `nibble_inputs`.
        """
        stepped = self.blocks > 1
        return _fields(
            {
                "scale_steps": (int(stepped), torch.int8),
                "minimum_steps": (int(stepped and self.minima), torch.int8),
                "integers": (self.inputs // 8, torch.int32) if self.bits == 4 else (self.inputs, torch.int8),
            }
        )

    @cached_property
    def first_block(self) -> int:
        """Where the blocks of a super-block begin."""
        return sum(field.nbytes for field in self.factors.values())

    @cached_property
    def block_bytes(self) -> int:
        """Size of a block of 32 outputs."""
        return sum(field.nbytes for field in self.fields.values())

    @cached_property
    def nbytes(self) -> int:
        """Size of a super-block of 32 outputs."""
        return self.first_block + self.blocks * self.block_bytes

    def size_of(self, outputs: int, inputs: int) -> int:
        """Size of a packed weight, as `Packed.nbytes`."""
        return outputs * (inputs // (self.blocks * self.inputs)) * self.nbytes // GROUP

    def room(self, outputs: int, inputs: int, arena: Arena) -> Packed:
        """Memory for a weight, to be filled by `packing.pack`."""
        groups, super_blocks = -(-outputs // GROUP), inputs // (self.blocks * self.inputs)
        return Packed(self, outputs, inputs, arena.take(groups * super_blocks * self.nbytes).view(groups, -1))

    def rows(self, data: Tensor, outputs: Tensor) -> Tensor:
        """See `Format.rows`."""
        places = outputs // GROUP, ..., outputs % GROUP
        fields = {name: field[places] for name, field in self.views(data).items()}
        integers = fields["integers"]
        if self.bits == 4:
            integers = torch.stack([integers >> 4 * i & 15 for i in range(8)], -1)
            integers = integers.flatten(-2)[..., _nibble_places()]
        values = integers * (fields["scales"].float() * fields.get("scale_steps", 1))
        if self.minima:
            values += fields["minima"].float() * fields.get("minimum_steps", 1)
        return values.flatten(1)

    def views(self, data: Tensor) -> dict[str, Tensor]:
        """The fields of a packed weight, each [groups, super-blocks, blocks or 1, vectors, 32]."""
        super_blocks = data.view(len(data), -1, self.nbytes)
        blocks = super_blocks[..., self.first_block :]
        blocks = blocks.view(*blocks.shape[:2], self.blocks, self.block_bytes)
        return {
            **{name: field.of(super_blocks)[:, :, None] for name, field in self.factors.items()},
            **{name: field.of(blocks) for name, field in self.fields.items()},
        }


class Field(NamedTuple):
    """A part of the bytes of a group's block or super-block: some vectors of 32 numbers.

    Attributes:
        first: Its first byte.
        vectors: Number of vectors.
        dtype: Type of the numbers.
    """

    first: int
    vectors: int
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.vectors * GROUP * self.dtype.itemsize

    def of(self, blocks: Tensor) -> Tensor:
        """The field of each block: [..., bytes] to [..., vectors, 32]."""
        part = blocks[..., self.first : self.first + self.nbytes].view(self.dtype)
        return part.view(*part.shape[:-1], self.vectors, GROUP)


def _fields(sizes: dict[str, tuple[int, torch.dtype]]) -> dict[str, Field]:
    """The fields of some numbers of vectors, one after the other."""
    fields, first = {}, 0
    for name, (vectors, dtype) in sizes.items():
        if vectors:
            fields[name] = Field(first, vectors, dtype)
            first += fields[name].nbytes
    return fields


FOUR_BITS = BlockFormat("four_bits", 4, minima=True)
EIGHT_BITS = BlockFormat("eight_bits", 8)
EIGHT_BITS_WITH_MINIMA = BlockFormat("eight_bits_with_minima", 8, minima=True)
FOUR_BITS_WITH_STEPS = BlockFormat("four_bits_with_steps", 4, blocks=8, minima=True)
EIGHT_BITS_WITH_STEPS = BlockFormat("eight_bits_with_steps", 8, blocks=8, minima=True)
EIGHT_BITS_IN_16 = BlockFormat("eight_bits_in_16", 8, inputs=16, blocks=16)

BLOCK_FORMATS = (
    FOUR_BITS,
    EIGHT_BITS,
    EIGHT_BITS_WITH_MINIMA,
    FOUR_BITS_WITH_STEPS,
    EIGHT_BITS_WITH_STEPS,
    EIGHT_BITS_IN_16,
)


def nibble_inputs() -> list[int]:
    """The inputs of the 8 x 4 bits in a block's first vector; those of the other three are 4, 8 and 12 more.

    A file's byte holds two numbers that are 16 inputs apart, and stays as it is.
    """
    return [16 * (i % 2) + i // 2 for i in range(8)]


def _nibble_places() -> Tensor:
    """For each of a block's 32 inputs its place among the 4 bits of the block's vectors."""
    return torch.tensor([4 * vector + i for vector in range(4) for i in nibble_inputs()]).argsort()
