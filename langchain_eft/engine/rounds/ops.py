"""The operations of a round besides running models: Triton kernels, or the torch functions that define them.

The kernels must equal the torch functions; they take fewer launches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from langchain_eft.engine.decoding.acceptance import accept_or_resample
from langchain_eft.engine.decoding.formula import combine
from langchain_eft.engine.decoding.sampling import Draw, Sampling, draw, probabilities
from langchain_eft.engine.rounds.layout import TokenLayout, lay_out
from langchain_eft.engine.rounds.progress import RowProgress, accept, begin
from langchain_eft.engine.rounds.staging import PackedTensors


class RoundOps(NamedTuple):
    """The operations of a round.

    Attributes:
        begin: See `progress.begin`.
        accept: See `progress.accept`.
        lay_out: See `layout.lay_out`.
        combine: See `formula.combine`.
        draw: See `sampling.draw`.
        probabilities: See `sampling.probabilities`.
        accept_or_resample: See `acceptance.accept_or_resample`.
    """

    begin: Callable[[PackedTensors, Tensor, Tensor], RowProgress]
    accept: Callable[[Tensor, Tensor, Tensor, RowProgress, PackedTensors, Tensor, Tensor], None]
    lay_out: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], TokenLayout]
    combine: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    draw: Callable[[Tensor, Sampling], Draw]
    probabilities: Callable[[Tensor, Sampling], Tensor]
    accept_or_resample: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def round_ops(*, kernels: bool) -> RoundOps:
    """The operations as kernels, or as torch functions."""
    if not kernels:
        return RoundOps(begin, accept, lay_out, combine, draw, probabilities, accept_or_resample)
    from langchain_eft.engine.decoding.triton import (
        accept_or_resample_kernel,
        combine_kernel,
        draw_kernel,
        probabilities_kernel,
    )
    from langchain_eft.engine.rounds.layout_triton import lay_out_kernel
    from langchain_eft.engine.rounds.progress_triton import accept_kernel, begin_kernel

    return RoundOps(
        begin_kernel,
        accept_kernel,
        lay_out_kernel,
        combine_kernel,
        draw_kernel,
        probabilities_kernel,
        accept_or_resample_kernel,
    )
