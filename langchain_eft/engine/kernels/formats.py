"""How the weights of linear layers lie in memory, so that a vector of a kernel is one input of 16 outputs.

A weight is packed in groups of 32 outputs. In a group, the 32 numbers of an input lie side by side: two
vectors, and one stream that memory can foresee. The lanes of a vector are outputs, so each output is one sum
over the inputs, in one order: neither other rows nor the width of a processor's registers change a bit of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from langchain_eft.engine.kernels.arena import Arena

GROUP = 32
"""Outputs of a group. The last one is filled up with zeros."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A packed weight.

    Attributes:
        format: How it is packed.
        outputs: Number of outputs.
        inputs: Number of inputs.
        data: [groups, bytes of a group] uint8.
        scales: [groups * 32] float32 factors of the outputs, or None.
    """

    format: Format
    outputs: int
    inputs: int
    data: Tensor
    scales: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Size in memory, without what fills up the last group."""
        stored = self.data.nbytes + (0 if self.scales is None else self.scales.nbytes)
        return stored * self.outputs // (GROUP * len(self.data))

    def rows(self, outputs: Tensor) -> Tensor:
        """The float32 weights of some outputs: [n] int64 to [n, in]."""
        rows = self.format.rows(self.data, outputs)
        return rows if self.scales is None else rows * self.scales[outputs, None]


class Format(ABC):
    """A way to pack weights.

    Attributes:
        name: Its name, which is also that of its kernel.
        minima: Whether blocks of 32 inputs have a number that is added to all of theirs.
    """

    name: str
    minima = False

    @abstractmethod
    def rows(self, data: Tensor, outputs: Tensor) -> Tensor:
        """The numbers of some outputs, without their scales.

        Args:
            data: The packed weight, [groups, bytes of a group] uint8.
            outputs: [n] int64.

        Returns:
            [n, in] float32.
        """


class Plain(Format):
    """The numbers themselves, in a floating point type."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.name = str(dtype).removeprefix("torch.")

    def pack(self, weight: Tensor, arena: Arena) -> Packed:
        """Pack an [out, in] weight of any floating point type. What this type does not hold is rounded."""
        outputs, inputs = weight.shape
        return Packed(self, outputs, inputs, _grouped(weight.to(self.dtype), arena))

    def rows(self, data: Tensor, outputs: Tensor) -> Tensor:
        """See `Format.rows`."""
        return _ungrouped(data.view(self.dtype), outputs)


class Int8(Format):
    """Integers of 8 bits, times a scale for each output."""

    name = "int8"
    largest = 127

    def pack(self, weight: Tensor, arena: Arena) -> Packed:
        """Pack an [out, in] weight of any floating point type. Numbers become multiples of a scale."""
        values, (outputs, inputs) = weight.float(), weight.shape
        scales = values.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / self.largest
        data = _grouped((values / scales[:, None]).round().to(torch.int8), arena)
        return Packed(self, outputs, inputs, data, pad(scales, (0, len(data) * GROUP - outputs)))

    def rows(self, data: Tensor, outputs: Tensor) -> Tensor:
        """See `Format.rows`."""
        return _ungrouped(data.view(torch.int8), outputs)


def _grouped(weight: Tensor, arena: Arena) -> Tensor:
    """[out, in] numbers of any type as [groups, bytes of a group]."""
    outputs, inputs = weight.shape
    groups = -(-outputs // GROUP)
    data = arena.take(groups * inputs * GROUP * weight.itemsize).view(groups, -1)
    filled = pad(weight, (0, 0, 0, groups * GROUP - outputs)) if groups * GROUP != outputs else weight
    data.view(weight.dtype).view(groups, inputs, GROUP).copy_(filled.view(groups, GROUP, inputs).mT)
    return data


def _ungrouped(data: Tensor, outputs: Tensor) -> Tensor:
    """Rows of the numbers that `_grouped` has packed, as float32."""
    return data.view(len(data), -1, GROUP)[outputs // GROUP, :, outputs % GROUP].float()


FLOAT32, FLOAT16, BFLOAT16 = Plain(torch.float32), Plain(torch.float16), Plain(torch.bfloat16)
INT8 = Int8()

NUMBER_FORMATS: tuple[Plain | Int8, ...] = (FLOAT32, FLOAT16, BFLOAT16, INT8)


def lossless(weight: Tensor) -> Plain:
    """The smallest format that holds all digits of a floating point weight."""
    for one in (BFLOAT16, FLOAT16):
        if weight.dtype == one.dtype or torch.equal(weight.to(one.dtype).float(), weight.float()):
            return one
    return FLOAT32
