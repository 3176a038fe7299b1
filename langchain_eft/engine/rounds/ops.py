"""What a round does besides running models, as the device does it best: by Triton kernels, or by torch.

The torch functions define what is right; the kernels do the same in fewer launches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from langchain_eft.engine.decoding.acceptance import couple
from langchain_eft.engine.decoding.formula import combine
from langchain_eft.engine.decoding.sampling import Draw, Sampling, draw
from langchain_eft.engine.rounds.layout import Seats, seat


class Operations(NamedTuple):
    """The operations.

    Attributes:
        seat: See `seats.seat`.
        combine: See `formula.combine`.
        draw: See `sampling.draw`.
        couple: See `speculation.couple`.
    """

    seat: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Seats]
    combine: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    draw: Callable[[Tensor, Sampling], Draw]
    couple: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def operations(*, kernels: bool) -> Operations:
    """The operations, by kernels or by torch."""
    if not kernels:
        return Operations(seat, combine, draw, couple)
    from langchain_eft.engine.decoding.triton import combine_kernel, couple_kernel, draw_kernel
    from langchain_eft.engine.rounds.layout_triton import seat_kernel

    return Operations(seat_kernel, combine_kernel, draw_kernel, couple_kernel)
