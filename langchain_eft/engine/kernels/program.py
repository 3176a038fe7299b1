"""Programs: calls of kernels, one after another, which one native call runs without the interpreter lock.

A kernel has one argument, the address of its arguments, which begin with what `Work` has. A step runs it on
as many rows as an `Extent` says at that time, so a program is written once and serves batches of any size.
"""

from __future__ import annotations

import ctypes
from array import array
from time import perf_counter

import torch

from langchain_eft.engine.cores import cores_of_container
from langchain_eft.engine.kernels.pace import Pace
from langchain_eft.engine.kernels.store import Kernel, address_of
from langchain_eft.engine.kernels.threads import workers


class Work(ctypes.Structure):
    """How the arguments of each kernel begin. A program writes it before it calls the kernel.

    Attributes:
        rows: Number of rows.
        drawn: How many shares of the work threads have drawn.
        entered: How many threads have begun.
        threads: How many threads may work.
    """

    _fields_ = tuple((name, ctypes.c_int64) for name in ("rows", "drawn", "entered", "threads"))


class Extent(ctypes.Structure):
    """How much there is to do.

    Attributes:
        rows: Number of rows. Steps without rows are skipped.
        length: Factor on the cost of a row.
    """

    _fields_ = tuple((name, ctypes.c_int64) for name in ("rows", "length"))

    def __init__(self, rows: int = 0, length: int = 1) -> None:
        super().__init__(rows, length)


class Call(ctypes.Structure):
    """What the kernel `run` reads.

    Attributes:
        steps: Address of the steps.
        end: Address after the last one.
        threads: How many threads may work.
        board: Address of the workers' `Board`, if there are several.
    """

    _fields_ = tuple((name, ctypes.c_int64) for name in ("steps", "end", "threads", "board"))


class Step(ctypes.Structure):
    """A call of a kernel.

    Attributes:
        kernel: Address of the kernel.
        arguments: Address of its arguments.
        extent: Address of its extent.
        cost: Bytes that a row reads, or what takes as long.
    """

    _fields_ = tuple((name, ctypes.c_int64) for name in ("kernel", "arguments", "extent", "cost"))


class Program:
    """Calls of kernels, one after another, by one thread at a time."""

    def __init__(self) -> None:
        self._steps = array("q")
        self._kept: list[object] = []  # what the steps' addresses belong to
        self._call = Call()
        self._extent = Extent()
        self._paces: dict[tuple[int, int], Pace] = {}

    def add(self, kernel: Kernel, arguments: Work, extent: Extent, cost: int, *kept: object) -> None:
        """Add a step.

        Args:
            kernel: The kernel.
            arguments: Its arguments, which may change between runs.
            extent: What its number of rows is read from.
            cost: Bytes that a row reads, or what takes as long. It decides whether threads share the work.
            *kept: What the addresses among the arguments belong to.
        """
        if not self._steps:
            self._extent = extent
        self._steps.extend((address_of(kernel), ctypes.addressof(arguments), ctypes.addressof(extent), cost))
        self._kept += (arguments, extent, *kept)
        steps, count = self._steps.buffer_info()
        self._call.steps, self._call.end = steps, steps + count * self._steps.itemsize

    def run(self) -> None:
        """Run all steps, on torch's number of threads or fewer: as many as were fastest for so many rows."""
        most, rows = min(torch.get_num_threads(), cores_of_container()), self._extent.rows
        if most == 1:
            workers().run(self._call, 1)
            return
        key = most, rows.bit_length()
        pace = self._paces.get(key) or self._paces.setdefault(key, Pace(most))
        began = perf_counter()
        workers().run(self._call, pace.threads())
        pace.note(self._call.threads, (perf_counter() - began) / max(1, rows))
