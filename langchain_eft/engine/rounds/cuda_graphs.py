"""CUDA graphs and streams for rounds.

A CUDA graph records the kernels of a function once, and launches all of them again at once. Without a GPU,
and with `cuda_graphs=False`, the same functions are called.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

T = TypeVar("T")

Replay = Callable[[], None]
"""Runs the recorded kernels of a function again."""

Recorder = Callable[[Callable[[], None]], Replay]
"""Runs a function for warm-up, then records it."""


class CudaRecorder:
    """Records functions as CUDA graphs, all in one memory pool.

    Rounds follow each other on one stream, so recordings may share memory for temporary tensors. If the
    largest is recorded first, the others fit into its memory.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, function: Callable[[], None]) -> Replay:
        """Record a function that always uses the same tensors, after two warm-up runs.

        Raises:
            RuntimeError: The function reads a value back to the host.
        """
        # Warm-up loads kernels, chooses algorithms and allocates lasting memory. None of it may be recorded.
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                function()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the device at the same time, so only calls of this thread are checked.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                function()
        finally:  # a recording that fails leaves its stream as the current one
            torch.cuda.set_stream(current)
        return graph.replay


class Graphs:
    """Recordings of functions by key; each function is recorded when it first runs.

    A recording fixes everything that its kernels are launched with, so the key must determine all of it.

    Args:
        recorder: Records a function. None calls functions without recording.
        keep: Tensors whose values warm-up must not change.
    """

    def __init__(self, recorder: Recorder | None, keep: Sequence[Tensor]) -> None:
        self._recorder = recorder
        self._keep = keep
        self._replays: dict[Hashable, Replay] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether the function of this key runs without being recorded first."""
        return self._recorder is None or key in self._replays

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Run a function, from its recording if there is one."""
        self.prepare(key, function)
        self._replays.get(key, function)()

    def prepare(self, key: Hashable, function: Callable[[], None]) -> None:
        """Record a function, unless that was done or has failed before."""
        if self._recorder is None or key in self._replays:
            return
        values = [tensor.clone() for tensor in self._keep]
        try:
            self._replays[key] = self._recorder(function)
        except RuntimeError as error:
            self._replays[key] = function
            logger.warning(
                "A decoding round cannot be recorded as a CUDA graph, so it runs kernel by kernel, several "
                "times slower (%s). `cuda_graphs=False` records nothing and silences this.",
                error,
            )
        for tensor, value in zip(self._keep, values, strict=True):
            tensor.copy_(value)

    def forget(self, key: Hashable) -> None:
        """Delete a recording and free its memory."""
        self._replays.pop(key, None)


class Streams:
    """Runs independent pieces of work in parallel on a CUDA device, and one after the other elsewhere.

    Args:
        device: Where the work runs.
        count: Most pieces that run in parallel.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        parallel = device.type == "cuda"
        self._side = [torch.cuda.Stream(device) for _ in range(count - 1)] if parallel else []  # type: ignore[no-untyped-call]

    def run(self, pieces: Sequence[Callable[[], T]]) -> list[T]:
        """Run all pieces; returns their results, ready for the current stream.

        The first piece runs on the current stream. The others run on side streams, which fork from it here
        and join it before this returns. In a recording they become branches.
        """
        if not self._side or len(pieces) < 2:
            return [piece() for piece in pieces]
        current = torch.cuda.current_stream()
        results = []
        for i, piece in enumerate(pieces):
            if not i:
                continue
            side = self._side[i - 1]
            side.wait_stream(current)
            with torch.cuda.stream(side):
                results.append(piece())
        first = pieces[0]()
        for side in self._side[: len(pieces) - 1]:
            current.wait_stream(side)
        return [first, *results]
