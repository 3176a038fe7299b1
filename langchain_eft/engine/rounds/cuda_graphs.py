"""CUDA graphs: a round's kernels recorded once and launched again as one; and work side by side in it.

Off the GPU, and with `cuda_graphs=False`, the same functions are simply called.
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
"""Does again what a recorded function has done."""


Recorder = Callable[[Callable[[], None]], Replay]
"""Runs a function for a trial and records it."""


class CudaRecorder:
    """Records functions as CUDA graphs, all in one memory pool.

    Rounds follow each other on one stream, so recordings may reuse each other's temporaries; recorded first,
    the largest leaves room for all others.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, function: Callable[[], None]) -> Replay:
        """Record a function over tensors in fixed places, after two trial runs.

        Raises:
            RuntimeError: The function asks the host something.
        """
        # Trial runs load kernels, choose algorithms and allocate what lasts: all that must not be recorded.
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                function()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of the process may use the device meanwhile: only this one's calls are checked.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                function()
        finally:  # a recording that fails leaves its own stream behind as the current one
            torch.cuda.set_stream(current)
        return graph.replay


class Graphs:
    """Functions by key, each recorded when it first runs.

    Whatever a kernel is launched with is baked into a recording, so it has to be part of the key.

    Args:
        recorder: Records; None, where functions are just called.
        keep: Tensors that the trial runs before a recording must leave as they are.
    """

    def __init__(self, recorder: Recorder | None, keep: Sequence[Tensor]) -> None:
        self._recorder = recorder
        self._keep = keep
        self._replays: dict[Hashable, Replay] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether running the function of this key records nothing any more."""
        return self._recorder is None or key in self._replays

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Run a function, by its recording if there is one."""
        self.prepare(key, function)
        self._replays.get(key, function)()

    def prepare(self, key: Hashable, function: Callable[[], None]) -> None:
        """Record a function unless that was done, or tried, before."""
        if self._recorder is None or key in self._replays:
            return
        kept = [tensor.clone() for tensor in self._keep]
        try:
            self._replays[key] = self._recorder(function)
        except RuntimeError as error:
            self._replays[key] = function
            logger.warning(
                "A decoding round cannot be recorded as a CUDA graph, so it runs kernel by kernel, several "
                "times slower (%s). `cuda_graphs=False` records nothing and silences this.",
                error,
            )
        for tensor, value in zip(self._keep, kept, strict=True):
            tensor.copy_(value)

    def forget(self, key: Hashable) -> None:
        """Give the memory of a recording back."""
        self._replays.pop(key, None)


class Streams:
    """Runs independent pieces of work side by side on a CUDA device, one after the other elsewhere.

    Args:
        device: Where the work runs.
        count: Most pieces at once.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        parallel = device.type == "cuda"
        self._side = [torch.cuda.Stream(device) for _ in range(count - 1)] if parallel else []  # type: ignore[no-untyped-call]

    def run(self, pieces: Sequence[Callable[[], T]]) -> list[T]:
        """Results of all pieces, ready for the current stream.

        The first piece stays on the current stream; in a recording the others become branches that fork from
        it here and join it again before this returns.
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
