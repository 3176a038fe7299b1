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
from langchain_eft.engine.kernels.store import Kernel, kernel
from langchain_eft.engine.kernels.target import Target
from langchain_eft.engine.kernels.threads import workers
from langchain_eft.engine.progress import Progress, silent

_FEWEST_SHARED = 1 << 18
"""Bytes of the weight, times rows, for which it is worth to wake a worker: some 20 us of work."""

_SHARES = 4
"""Shares of a thread: so the others do the work of one that the system interrupts."""


SUMS = "block_sums"
"""The kernel that sums each `SUMMED` inputs of a row."""

SUMMED = 32


class Arguments(ctypes.Structure):
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
        rows: Number of rows.
        group_bytes: Size of a group of outputs.
        inputs: Number of inputs.
        groups: Number of groups.
        share: Number of groups that a thread draws at a time.
        drawn: Number of groups that threads have drawn.
    """

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            "x", "sums", "weights", "scales", "y", "x_step", "sum_step", "y_step", "rows", "group_bytes",
            "inputs", "groups", "share", "drawn",
        )
    )  # fmt: skip


def product_kernel(name: str, target: Target | None = None, progress: Progress = silent) -> Kernel:
    """The kernel of a format, or that of block sums, for a processor."""
    return kernel(f"{__package__}.product_kernels", name, 1, target=target, progress=progress)


class Product:
    """`x @ weight.T` for one weight, by one thread at a time.

    Args:
        parts: The weight, [out, in], as parts with some of the outputs each.
        target: The processor to compute as, or None for all that this one has.
    """

    def __init__(self, parts: Sequence[Packed], target: Target | None = None) -> None:
        firsts = list(accumulate((part.outputs for part in parts), initial=0))
        self._outputs, self._inputs = firsts[-1], parts[0].inputs
        self._width = max(first + GROUP * len(part.data) for first, part in zip(firsts, parts, strict=False))
        self._parts = [_Part(part, first, target) for first, part in zip(firsts, parts, strict=False)]
        self._block_sums = product_kernel(SUMS, target) if any(part.format.minima for part in parts) else None

    def __call__(self, x: Tensor) -> Tensor:
        """[N, in] float32 to [N, out] float32."""
        if x.stride(1) != 1:
            x = x.contiguous()
        rows = len(x)
        y = torch.empty(rows, self._width)
        sums = None if self._block_sums is None else self._sums(x)
        for part in self._parts:  # one may overwrite where the next one begins
            part.multiply(x, sums, y)
        return y if self._width == self._outputs else y[:, : self._outputs].contiguous()

    def _sums(self, x: Tensor) -> Tensor:
        """The sums of each 32 inputs of a row, which minima are multiplied with."""
        sums = torch.empty(len(x), self._inputs // SUMMED)
        arguments = Arguments(
            x=x.data_ptr(),
            sums=sums.data_ptr(),
            x_step=4 * x.stride(0),
            sum_step=4 * sums.stride(0),
            rows=len(x),
            inputs=self._inputs,
        )
        self._block_sums(ctypes.addressof(arguments))  # type: ignore[misc]
        return sums


class _Part:
    """A part of a weight, with what its kernel reads."""

    def __init__(self, part: Packed, first: int, target: Target | None) -> None:
        self._kernel, self._first, self._nbytes = (
            product_kernel(part.format.name, target),
            first,
            part.nbytes,
        )
        self._arguments = Arguments(
            weights=part.data.data_ptr(),
            scales=0 if part.scales is None else part.scales.data_ptr(),
            group_bytes=part.data.stride(0),
            inputs=part.inputs,
            groups=len(part.data),
        )
        self._address = ctypes.addressof(self._arguments)
        self._part = part  # whose memory the kernel reads

    def multiply(self, x: Tensor, sums: Tensor | None, y: Tensor) -> None:
        arguments, threads = self._arguments, torch.get_num_threads()
        arguments.x, arguments.x_step, arguments.rows = x.data_ptr(), 4 * x.stride(0), len(x)
        arguments.y, arguments.y_step = y.data_ptr() + 4 * self._first, 4 * y.stride(0)
        if sums is not None:
            arguments.sums, arguments.sum_step = sums.data_ptr(), 4 * sums.stride(0)
        arguments.drawn, arguments.share = 0, arguments.groups
        if threads == 1 or arguments.rows * self._nbytes < _FEWEST_SHARED:
            self._kernel(self._address)
        else:
            arguments.share = -(-arguments.groups // (_SHARES * threads))
            workers().run(self._kernel, self._address, threads)
