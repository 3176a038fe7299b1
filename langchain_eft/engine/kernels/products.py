"""Products of packed tokens with packed weights on a CPU, with activations and sums in float32.

A row's result is the same bit for bit for any number of rows, on every processor, and however the outputs are
shared among threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from langchain_eft.engine.kernels.formats import GROUP, Packed
from langchain_eft.engine.kernels.program import Extent, Program, Work
from langchain_eft.engine.kernels.store import Kernel, kernel
from langchain_eft.engine.kernels.target import Target
from langchain_eft.engine.progress import Progress, silent

SUMS = "block_sums"
"""The kernel that sums each `SUMMED` inputs of a row."""

SUMMED = 32

_ROWS = torch.empty(0, 0)
"""Stands for rows that a program gets later."""


class Arguments(Work):
    """What a kernel reads: addresses, steps in bytes and numbers.

    Attributes:
        x: Address of the rows.
        sums: Address of the rows' block sums, or 0.
        weights: Address of the packed weight.
        scales: Address of the outputs' factors, or 0.
        y: Address of the results.
        x_step: Between rows.
        sum_step: Between the block sums of rows.
        y_step: Between results.
        group_bytes: Size of a group of outputs.
        inputs: Number of inputs.
        groups: Number of groups.
    """

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            "x", "sums", "weights", "scales", "y", "x_step", "sum_step", "y_step", "group_bytes", "inputs",
            "groups",
        )
    )  # fmt: skip


def product_kernel(name: str, target: Target | None = None, progress: Progress = silent) -> Kernel:
    """The kernel of a format, or that of block sums, for a processor."""
    return kernel(f"{__package__}.product_kernels", name, target=target, progress=progress)


def padded_outputs(parts: Sequence[Packed]) -> int:
    """Number of results that the product of a row writes: those of the last group, and what fills it up."""
    return max(first + GROUP * len(part.data) for first, part in _by_first_output(parts))


def _by_first_output(parts: Sequence[Packed]) -> list[tuple[int, Packed]]:
    return list(zip(accumulate((part.outputs for part in parts), initial=0), parts, strict=False))


def add_product(
    program: Program,
    parts: Sequence[Packed],
    x: Tensor,
    sums: Tensor,
    y: Tensor,
    extent: Extent,
    target: Target | None = None,
) -> list[tuple[int, Arguments]]:
    """Add `y = x @ weight.T` to a program.

    Args:
        program: The program.
        parts: The weight, [out, in], as parts with some of the outputs each.
        x: [N, in] float32, the numbers of a row side by side.
        sums: [N, in / SUMMED] float32 for the sums of blocks, which minima are multiplied with.
        y: [N, `padded_outputs` or more] float32.
        extent: Says how many of the rows there are.
        target: The processor to compute as, or None for all that this one has.

    Returns:
        The first output and the arguments of each step. Their addresses may change.
    """
    of_rows = {"x": x.data_ptr(), "x_step": 4 * x.stride(0), "inputs": parts[0].inputs}
    of_rows |= {"sums": sums.data_ptr(), "sum_step": 4 * sums.stride(0)}
    steps = []
    if any(part.format.minima for part in parts):
        steps.append((0, Arguments(**of_rows)))
        program.add(product_kernel(SUMS, target), steps[0][1], extent, 4 * parts[0].inputs, x, sums)
    for first, part in _by_first_output(parts):  # one may overwrite where the next one begins
        arguments = Arguments(
            **of_rows,
            weights=part.data.data_ptr(),
            scales=0 if part.scales is None else part.scales.data_ptr(),
            y=y.data_ptr() + 4 * first,
            y_step=4 * y.stride(0),
            group_bytes=part.data.stride(0),
            groups=len(part.data),
        )
        program.add(product_kernel(part.format.name, target), arguments, extent, part.nbytes, part, x, y)
        steps.append((first, arguments))
    return steps


class Product:
    """`x @ weight.T` for one weight, by one thread at a time.

    Args:
        parts: The weight, [out, in], as parts with some of the outputs each.
        target: The processor to compute as, or None for all that this one has.
    """

    def __init__(self, parts: Sequence[Packed], target: Target | None = None) -> None:
        self._outputs, self._width = sum(part.outputs for part in parts), padded_outputs(parts)
        self._program, self._extent = Program(), Extent()
        self._steps = add_product(self._program, parts, _ROWS, _ROWS, _ROWS, self._extent, target)

    def __call__(self, x: Tensor) -> Tensor:
        """[N, in] float32 to [N, out] float32."""
        if x.stride(1) != 1:
            x = x.contiguous()
        y, sums = torch.empty(len(x), self._width), torch.empty(len(x), x.shape[1] // SUMMED)
        for first, step in self._steps:
            step.x, step.x_step = x.data_ptr(), 4 * x.stride(0)
            step.sums, step.sum_step = sums.data_ptr(), 4 * sums.stride(0)
            step.y, step.y_step = y.data_ptr() + 4 * first, 4 * y.stride(0)
        self._extent.rows = len(x)
        self._program.run()
        return y if self._width == self._outputs else y[:, : self._outputs].contiguous()
