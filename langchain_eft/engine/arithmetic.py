"""What leads from logits to tokens, as the device computes it best: by Triton kernels, or by torch.

The torch functions define what is right; the kernels do the same in fewer launches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from langchain_eft.engine.formula import combine
from langchain_eft.engine.sampling import Draw, Sampling, draw
from langchain_eft.engine.speculation import couple


class Arithmetic(NamedTuple):
    """The operations.

    Attributes:
        combine: See `formula.combine`.
        draw: See `sampling.draw`.
        couple: See `speculation.couple`.
    """

    combine: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    draw: Callable[[Tensor, Sampling], Draw]
    couple: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def arithmetic(*, kernels: bool) -> Arithmetic:
    """The operations, by kernels or by torch."""
    if not kernels:
        return Arithmetic(combine, draw, couple)
    from langchain_eft.engine.triton_sampling import (  # which needs Triton
        combine_kernel,
        couple_kernel,
        draw_kernel,
    )

    return Arithmetic(combine_kernel, draw_kernel, couple_kernel)
