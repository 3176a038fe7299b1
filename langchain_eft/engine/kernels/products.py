"""Products of packed tokens with packed weights on a CPU, with activations and sums in float32.

A row's result is the same bit for bit for any number of rows, on every processor, and however the outputs are
shared among threads.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from langchain_eft.engine.kernels.formats import GROUP, Format, Packed
from langchain_eft.engine.kernels.store import Kernel, kernel
from langchain_eft.engine.kernels.target import Target
from langchain_eft.engine.kernels.threads import workers
from langchain_eft.engine.progress import Progress, silent

_FEWEST_SHARED = 1 << 18
"""Bytes of the weight, times rows, for which it is worth to wake a worker: some 20 us of work."""

_SHARES = 4
"""Shares of a thread: so the others do the work of one that the system interrupts."""


class Arguments(ctypes.Structure):
    """What a kernel reads: addresses, steps in bytes and numbers.

    Attributes:
        x: Address of the rows.
        weights: Address of the packed weight.
        scales: Address of the outputs' factors, or 0.
        y: Address of the results.
        x_step: Between rows.
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
            "x", "weights", "scales", "y", "x_step", "y_step", "rows", "group_bytes", "inputs",
            "groups", "share", "drawn",
        )
    )  # fmt: skip


def product_kernel(one: Format, target: Target | None = None, progress: Progress = silent) -> Kernel:
    """The kernel of a format for a processor."""
    return kernel(f"{__package__}.product_kernels", one.name, 1, target=target, progress=progress)


_product_kernel = cache(product_kernel)


def product(x: Tensor, weight: Packed, target: Target | None = None) -> Tensor:
    """`x @ weight.T`.

    Args:
        x: [N, in] float32.
        weight: [out, in].
        target: The processor to compute as, or None for all that this one has.

    Returns:
        [N, out] float32.
    """
    if x.stride(1) != 1:
        x = x.contiguous()
    rows, groups = len(x), len(weight.data)
    y = torch.empty(rows, groups * GROUP)
    arguments = Arguments(
        x.data_ptr(),
        weight.data.data_ptr(),
        0 if weight.scales is None else weight.scales.data_ptr(),
        y.data_ptr(),
        4 * x.stride(0),
        4 * y.stride(0),
        rows,
        weight.data.stride(0),
        weight.inputs,
        groups,
        groups,
    )
    function, threads = _product_kernel(weight.format, target), torch.get_num_threads()
    if threads == 1 or rows * weight.nbytes < _FEWEST_SHARED:
        function(ctypes.addressof(arguments))
    else:
        arguments.share = -(-groups // (_SHARES * threads))
        workers().run(function, ctypes.addressof(arguments), threads)
    return y if y.shape[1] == weight.outputs else y[:, : weight.outputs].contiguous()
