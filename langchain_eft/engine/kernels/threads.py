"""Threads that share the work of a kernel. There is neither OpenMP nor a threading layer of numba.

A kernel draws shares of its work from a counter, so any number of threads may run it at once. The thread that
runs a program never waits for one that gets no processor: it does all shares that nobody else draws. Workers
look for jobs while a program runs and half a millisecond longer, and then sleep.
"""

from __future__ import annotations

import atexit
import ctypes
import os
from functools import cache
from threading import Event, Lock, Thread
from typing import Any

from langchain_eft.engine.kernels.store import Kernel, address_of, kernel

_Line = ctypes.c_int64 * 8
"""A number with a line of the processor's cache to itself."""


class Board(ctypes.Structure):
    """What the thread that runs a program shares with workers.

    Attributes:
        running: Whether a program runs.
        jobs: Number of jobs so far.
        helpers: How many workers the present job takes; 0 between jobs.
        active: How many workers look at the job.
        stopped: Whether workers shall end.
        function: Address of the job's kernel.
        arguments: What the kernel is called with.
        give_way: Address of a function that lets another thread have the processor.
    """

    _fields_ = tuple(
        (name, _Line)
        for name in ("running", "jobs", "helpers", "active", "stopped", "function", "arguments", "give_way")
    )


class Workers:
    """The workers of a process. They start when they are needed."""

    def __init__(self) -> None:
        self._board = Board()
        self._board.give_way[0] = address_of(_give_way())
        self._at = ctypes.addressof(self._board)
        self._run, self._work = (kernel(f"{__package__}.thread_kernels", name) for name in ("run", "work"))
        self._awake = Event()
        self._falling_asleep = Lock()
        self._busy = Lock()
        self._threads: list[Thread] = []
        atexit.register(self.stop)

    def run(self, call: Any, threads: int) -> None:
        """Run a program on up to `threads` threads, this one among them.

        Where the workers help another thread, or none is asked for, this thread works alone.

        Args:
            call: The `program.Call`.
            threads: How many threads may work.
        """
        call.threads, call.board, at = threads, self._at, ctypes.addressof(call)
        if threads < 2 or not self._busy.acquire(blocking=False):
            call.threads = 1
            self._run(at)
            return
        try:
            for _ in range(len(self._threads), threads - 1):
                self._threads.append(Thread(target=self._serve, name="eft-kernels", daemon=True))
                self._threads[-1].start()
            if not self._awake.is_set():
                self._awake.set()
            self._run(at)
        finally:
            self._busy.release()

    def stop(self) -> None:
        """End the workers. In a forked child none is alive, and a lock may be held for ever."""
        if not any(thread.is_alive() for thread in self._threads):
            return
        with self._falling_asleep:
            self._board.stopped[0] = 1
            self._awake.set()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while not self._board.stopped[0]:
            self._work(self._at)
            with self._falling_asleep:
                if not self._board.stopped[0]:  # else a worker that still waits would never see it
                    self._awake.clear()
            self._awake.wait()


def workers() -> Workers:
    """The workers of this process. A child that was forked gets its own: threads do not survive a fork."""
    return _workers_of(os.getpid())


@cache
def _workers_of(_: int) -> Workers:
    return Workers()


def _give_way() -> Kernel:
    if os.name == "nt":
        switch: Kernel = ctypes.windll.kernel32.SwitchToThread  # type: ignore[attr-defined, unused-ignore]
        return switch
    give_way: Kernel = ctypes.CDLL(None).sched_yield
    return give_way
