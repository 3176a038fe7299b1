"""Weights of linear layers in 8 bits on a CPU, multiplied with activations of two 8-bit digits by FBGEMM.

One digit would not do: a few activations of a token are a hundred times as large as the others, and round
these away. A second row for each token holds what the first one leaves, so the error of a product is that of
the weight's own rounding. Further rows take little time, because it takes most time to read the weight.

FBGEMM gives all rows of a product one scale, by their smallest and largest number. Here each row is divided
by its own largest number before, and a row with the bounds of the integers is added. So the scale never
changes, and a token's numbers do not depend on the tokens beside it. Sums of integers are exact.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Self

import torch
from torch import Tensor

from langchain_eft.engine.models.packed_weight import PackedWeight, has_fbgemm

_LARGEST = 127
"""Largest integer that stands for a weight."""

_TINY = 1e-30
"""Smallest scale of a row. Integers divided by it are still float32."""


def has_int8_products() -> bool:
    """Whether torch has FBGEMM's products of 8-bit integers for this processor."""
    return has_fbgemm() and hasattr(torch, "quantize_per_channel")


class Int8Weight(PackedWeight):
    """A weight in 8 bits, with a scale for each row.

    Attributes:
        bounds: [1, in] float32, a row with the bounds of the integers.
        largest: The integer that stands for a row's largest number: 127, or 63 on processors without VNNI.
            These add two products in 16 bits, which do not hold those of 8 bits.
    """

    bounds: Tensor
    largest: int
    bytes_per_value = 1

    @classmethod
    def pack(cls, weight: Tensor) -> Self:
        """Round and pack an [out, in] weight of any floating point type."""
        self = cls._of_shape(weight.shape)
        values = weight.detach().float()
        steps = values.abs().amax(1).clamp_min(_TINY) / _LARGEST
        zeros = torch.zeros(len(values), dtype=torch.int64)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # later versions may lack it
            integers = torch.quantize_per_channel(values, steps, zeros, axis=0, dtype=torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(integers, None)
        self.largest = 127 if torch.cpu._is_vnni_supported() else 63
        self.bounds = _bounds(weight.shape[1], self.largest)
        return self

    def product(self, x: Tensor) -> Tensor:
        """`x @ weight.T`: [N, in] float32 to [N, out] float32. A row does not depend on other rows."""
        count, steps = len(x), self.largest
        scale = torch.linalg.vector_norm(x, torch.inf, dim=1, keepdim=True).clamp_min_(_TINY)
        scaled = x * (steps / scale)
        rows = x.new_empty(2 * count + 1, x.shape[1])
        first, second = rows[:count], rows[count:-1]
        torch.round(scaled, out=first)  # integers, which FBGEMM does not round in another way
        torch.sub(scaled, first, out=second).mul_(2 * steps)
        rows[:-1].mul_(1 / steps)
        rows[-1:] = self.bounds
        y: Tensor = torch.ops.quantized.linear_dynamic(rows, self.packed, steps < _LARGEST)
        return torch.add(y[:count], y[count:-1], alpha=1 / (2 * steps)).mul_(scale)


@cache
def _bounds(size: int, largest: int) -> Tensor:
    """A row whose values make 1 / largest the scale, and 1 the largest integer: [1, size] float32."""
    row = torch.zeros(1, size)
    row[0, 0], row[0, -1] = -(largest + 1) / largest, 1
    return row
