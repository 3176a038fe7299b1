"""CUDA graphs and streams for rounds.

A CUDA graph records the kernels of a function once, and launches all of them again at once. Without a GPU,
and with `cuda_graphs=False`, the same functions are called.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import torch

from langchain_eft.engine.models.placement import recording_lock

logger = logging.getLogger(__name__)

T = TypeVar("T")

Replay = Callable[[], None]
"""Runs the recorded kernels of a function again."""

Recorder = Callable[[Callable[[], None]], Replay]
"""Runs a function for warm-up, then records it."""


class RecordingError(Exception):
    """A function runs, but it could not be recorded."""


class RecordingUnavailableError(RecordingError):
    """No function can be recorded any more: a recording failed, and PyTorch did not recover."""


class CudaRecorder:
    """Records functions as CUDA graphs, all in one memory pool.

    Rounds follow each other on one stream, so recordings may share memory for temporary tensors. If the
    largest is recorded first, the others fit into its memory.

    Args:
        device: The current device, where the functions run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._failed: list[torch.cuda.CUDAGraph] = []

    def __call__(self, function: Callable[[], None]) -> Replay:
        """Record a function that always uses the same tensors, after two warm-up runs.

        Raises:
            OutOfMemoryError: The device has no memory for the function, or for its recording.
            RecordingError: The function cannot be recorded, for example because it reads a value back to the
                host.
            RecordingUnavailableError: It cannot be, and neither can others.
        """
        with recording_lock:
            try:
                self._warm_up(function)
            except torch.OutOfMemoryError:
                self._pool = torch.cuda.graph_pool_handle()  # no pool may be used after its last recording
                raise
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
            self._recover(graph, error)
            # If the function fails, the end of its recording fails too, with an error of its own.
            reason = "; ".join(str(each) for each in _chain(error))
            if any(isinstance(each, torch.OutOfMemoryError) for each in _chain(error)):
                raise torch.OutOfMemoryError(reason) from error
            raise RecordingError(reason) from error
        return graph.replay

    def _recover(self, failed: torch.cuda.CUDAGraph, error: Exception) -> None:
        """Make recordings possible again after one that failed.

        Until pytorch#180395, PyTorch does not end the allocations of a recording whose end fails. The next
        recording then fails too, and so does returning memory.
        """
        self._failed.append(failed)  # the allocator for pinned memory keeps a pointer to it
        with contextlib.suppress(RuntimeError):  # PyTorch has ended them
            torch._C._cuda_endAllocateToPool(self._device.index, self._pool)
        self._pool = torch.cuda.graph_pool_handle()  # the old one counts the failed recording as a user
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            raise RecordingUnavailableError(str(error)) from error


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

        A function that cannot be recorded is called from then on.

        Raises:
            OutOfMemoryError: There is no memory for it, even without all other recordings.
        """
        self._replays[key] = self._recorded(function)

    def _recorded(self, function: Callable[[], None]) -> Replay:
        """The recording of a function, at the second attempt if the first one fails; else the function."""
        for is_last in (False, True):
            if self._recorder is None:
                break
            try:
                return self._recorder(function)
            except torch.OutOfMemoryError:
                if is_last:
                    raise
                self._replays.clear()
            except RecordingUnavailableError as error:
                self._recorder = None
                logger.warning(
                    "No more decoding rounds are recorded as CUDA graphs, so new kinds of rounds run kernel "
                    "by kernel, several times slower: a recording failed (%s), and PyTorch did not recover. "
                    "Start a new process to record again, or set `cuda_graphs=False` to record nothing.",
                    str(error),
                )
            except RecordingError as error:  # another thread may have disturbed it
                if is_last:
                    logger.warning(
                        "A decoding round cannot be recorded as a CUDA graph, so it runs kernel by kernel, "
                        "several times slower (%s). `cuda_graphs=False` records nothing and silences this.",
                        str(error),
                    )
        return function

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
        sides = self._side[: len(pieces) - 1]
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
