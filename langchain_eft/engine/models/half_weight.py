"""Weights of linear layers in half precision on a CPU, multiplied in float32 by FBGEMM.

Half precision halves the bytes that a pass reads. Nearly all checkpoints hold bfloat16 or float16, so nothing
is lost; a weight with more digits is not stored so. FBGEMM converts the weights in registers, and multiplies
and adds in float32. A row's result is the same bit for bit, whatever the other rows are.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from langchain_eft.engine.models.packed_weight import PackedWeight

_LARGEST_EXPONENT = 15
"""Values below 2^15 stay finite in float16 when they are rounded."""

_PRECISION = 2.0**-32
"""Largest error of a value, relative to the largest value of its weight. Float32 rounds it by 2^-25."""

_CHECKED_VALUES = 1 << 16
"""Number of values that are compared at a time."""


_product = torch.ops.quantized.linear_dynamic_fp16.default._op  # without a look for Python's own dispatch


class HalfWeight(PackedWeight):
    """A weight in half precision.

    Attributes:
        factor: None if the packed values are the weight, else a power of two: they are the weight divided by
            it, which lifts small values over the smallest float16 numbers, since these have fewer digits. A
            tensor, since torch would make one of a number at every product.
    """

    factor: Tensor | None
    bytes_per_value = 2

    @classmethod
    def pack(cls, weight: Tensor, factor: float) -> Self:
        """Pack an [out, in] weight of any floating point type."""
        self = cls._of_shape(weight.shape)
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight.float() / factor, None)
        self.factor = None if factor == 1 else torch.tensor(factor)
        return self

    def product(self, x: Tensor) -> Tensor:
        """`x @ weight.T`: [N, in] float32 to [N, out] float32. A row does not depend on other rows."""
        y: Tensor = _product(x, self.packed)
        return y if self.factor is None else y.mul_(self.factor)


def half_weight(weight: Tensor) -> HalfWeight | None:
    """A weight in half precision, or None if that would lose digits.

    Args:
        weight: [out, in] bfloat16, float16 or float32, on a CPU.
    """
    weight = weight.detach()
    largest = max(map(abs, map(float, weight.aminmax()))) if weight.numel() else math.nan
    if not math.isfinite(largest):
        return None  # it is empty, or reported elsewhere
    if _survives(weight, 1.0, 0.0):
        return HalfWeight.pack(weight, 1.0)
    factor = 2.0 ** max(-100, math.frexp(largest)[1] - _LARGEST_EXPONENT)
    # All digits of a 16-bit number survive, but those of numbers far below the precision of the largest.
    if weight.dtype == torch.float32 and not _survives(weight, factor, largest * _PRECISION):
        return None
    return HalfWeight.pack(weight, factor)


def _survives(weight: Tensor, factor: float, tolerance: float) -> bool:
    # A part fits the processor's cache, and the first one shows whether the weight has more digits.
    for part in torch.split(weight, max(1, _CHECKED_VALUES // weight.shape[1])):
        rows = part.float()
        if ((rows / factor).half().float() * factor - rows).abs().amax() > tolerance:
            return False
    return True
