"""Products of packed tokens with packed weights on a CPU, with activations and sums in float32.

A row's result is the same bit for bit for any number of rows, on every processor, and however the outputs are
shared among threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
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


_product_kernel = cache(product_kernel)


def product(x: Tensor, parts: Sequence[Packed], target: Target | None = None) -> Tensor:
    """`x @ weight.T`.

    Args:
        x: [N, in] float32.
        parts: The weight, [out, in], as parts with some of the outputs each.
        target: The processor to compute as, or None for all that this one has.

    Returns:
        [N, out] float32.
    """
    if x.stride(1) != 1:
        x = x.contiguous()
    firsts = list(accumulate((part.outputs for part in parts), initial=0))
    width = max(first + GROUP * len(part.data) for first, part in zip(firsts, parts, strict=False))
    y = torch.empty(len(x), width)
    arguments = Arguments(
        x=x.data_ptr(),
        x_step=4 * x.stride(0),
        y_step=4 * y.stride(0),
        rows=len(x),
        inputs=parts[0].inputs,
    )
    sums = _block_sums(x, arguments, target) if any(part.format.minima for part in parts) else None
    for first, part in zip(firsts, parts, strict=False):  # a part may overwrite where the next one begins
        arguments.y = y.data_ptr() + 4 * first
        _multiply(part, arguments, target)
    del sums  # now nobody reads them
    return y if width == firsts[-1] else y[:, : firsts[-1]].contiguous()


def _block_sums(x: Tensor, arguments: Arguments, target: Target | None) -> Tensor:
    """The sums of each 32 inputs of a row, which minima are multiplied with."""
    sums = torch.empty(len(x), x.shape[1] // SUMMED)
    arguments.sums, arguments.sum_step = sums.data_ptr(), 4 * sums.stride(0)
    _product_kernel(SUMS, target)(ctypes.addressof(arguments))
    return sums


def _multiply(part: Packed, arguments: Arguments, target: Target | None) -> None:
    arguments.weights, arguments.group_bytes = part.data.data_ptr(), part.data.stride(0)
    arguments.scales = 0 if part.scales is None else part.scales.data_ptr()
    arguments.groups = arguments.share = groups = len(part.data)
    arguments.drawn = 0
    function, threads = _product_kernel(part.format.name, target), torch.get_num_threads()
    if threads == 1 or arguments.rows * part.nbytes < _FEWEST_SHARED:
        function(ctypes.addressof(arguments))
    else:
        arguments.share = -(-groups // (_SHARES * threads))
        workers().run(function, ctypes.addressof(arguments), threads)
