"""CUDA graphs and streams for rounds.

A CUDA graph records the kernels of a function once, and launches all of them again at once. Without a GPU,
and with `cuda_graphs=False`, the same functions are called.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from typing import TypeVar

import torch

from langchain_eft.engine.models.placement import recording_lock

logger = logging.getLogger(__name__)

T = TypeVar("T")

Replay = Callable[[], None]
"""Runs the recorded kernels of a function again."""

Recorder = Callable[[Callable[[], None]], Replay]
"""Runs a function for warm-up, then records it."""


_failed: list[torch.cuda.CUDAGraph] = []
"""Recordings that failed: PyTorch's allocator for pinned memory keeps a pointer to them."""


class RecordingError(Exception):
    """A function runs, but it could not be recorded."""


class CudaRecorder:
    """Records functions as CUDA graphs, all in one memory pool.

    Rounds follow each other on one stream, so recordings may share memory for temporary tensors. If the
    largest is recorded first, the others fit into its memory.

    Args:
        device: The current device, where the functions run.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = _stream(device, 0, recording=True)

    def __call__(self, function: Callable[[], None]) -> Replay:
        """Record a function that always uses the same tensors, after two warm-up runs.

        Raises:
            RecordingError: The function cannot be recorded, for example because it reads a value back to the
                host.
        """
        with recording_lock:
            self._warm_up(function)
            return self._capture(function)

    def _warm_up(self, function: Callable[[], None]) -> None:
        """Load kernels, choose algorithms and allocate lasting memory. None of it may be recorded."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(2):
                    function()
        finally:
            current.wait_stream(self._stream)

    def _capture(self, function: Callable[[], None]) -> Replay:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # Other threads may use the device at the same time, so only calls of this thread are checked.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                function()
        except Exception as error:
            torch.cuda.set_stream(current)  # the failed recording has left its own
            _failed.append(graph)
            # If the function fails, the end of its recording fails too, with an error of its own.
            raise RecordingError("; ".join(map(str, _chain(error)))) from error
        return graph.replay


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that were handled when it was raised, last first."""
    while error is not None:
        yield error
        error = error.__context__


class Graphs:
    """Recordings of functions by key.

    A recording fixes everything that its kernels are launched with, so the key must determine all of it.

    Args:
        recorder: Records a function. None calls functions without recording.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._replays: dict[Hashable, Replay] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether there is nothing to record for this key, any more or at all."""
        return self._recorder is None or key in self._replays

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Run a function, from its recording if there is one."""
        self._replays.get(key, function)()

    def record(self, key: Hashable, function: Callable[[], None]) -> None:
        """Record a function, which runs several times for that.

        If it cannot be recorded, nothing is recorded any more: others would fail as it did, for models ask
        the host in every round, or because PyTorch has not ended the recording that failed.
        """
        if self._recorder is None:
            return
        try:
            self._replays[key] = self._recorder(function)
        except RecordingError as error:
            self._recorder = None
            logger.warning(
                "A decoding round cannot be recorded as a CUDA graph, so new kinds of rounds run kernel by "
                "kernel, several times slower (%s). If that is for lack of memory, lower "
                "`kv_cache_fraction`. `cuda_graphs=False` records nothing and silences this.",
                str(error),
            )

    def forget(self, key: Hashable) -> None:
        """Delete a recording and free its memory."""
        self._replays.pop(key, None)


class Streams:
    """Runs independent pieces of work in parallel on a CUDA device, and one after the other elsewhere.

    Args:
        device: Where the work runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def run(self, pieces: Sequence[Callable[[], T]]) -> list[T]:
        """Run all pieces; returns their results, ready for the current stream.

        The first piece runs on the current stream. The others run on side streams, which fork from it here
        and join it before this returns. In a recording they become branches.
        """
        if self._device.type != "cuda" or len(pieces) < 2:
            return [piece() for piece in pieces]
        current = torch.cuda.current_stream()
        recording = current == _stream(self._device, 0, recording=True)
        sides = [_stream(self._device, i, recording=recording) for i in range(1, len(pieces))]
        results = []
        for side in sides:
            side.wait_stream(current)
        try:
            for side, piece in zip(sides, pieces[1:], strict=True):
                with torch.cuda.stream(side):
                    results.append(piece())
            return [pieces[0](), *results]
        finally:  # after a failure too: a recording cannot end while a branch is open
            for side in sides:
                current.wait_stream(side)


@cache
def _stream(device: torch.device, number: int, *, recording: bool) -> torch.cuda.Stream:  # noqa: ARG001
    """A stream that all engines share, for PyTorch makes only 32 of a device.

    The process makes one recording at a time. It has streams of its own: what other engines run meanwhile
    must not be recorded.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
