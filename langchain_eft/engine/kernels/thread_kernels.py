"""Kernels for `threads`: how a thread offers a job to workers, and how these wait for one."""

from __future__ import annotations

from collections.abc import Callable

from langchain_eft.engine.kernels import simd
from langchain_eft.engine.kernels.target import Target
from langchain_eft.engine.kernels.threads import Board

_JOBS, _HELPERS, _ACTIVE = Board.jobs.offset, Board.helpers.offset, Board.active.offset
_STOPPED, _FUNCTION, _ARGUMENTS = Board.stopped.offset, Board.function.offset, Board.arguments.offset
_WANTED, _GIVE_WAY = Board.wanted.offset, Board.give_way.offset

_SPINS = 2000
"""Looks for a job before a thread lets others have the processor: about 10 us."""

_PATIENCE = 3000
"""Looks for a job before a worker goes to sleep: some 0.5 ms, so that it does not between two products."""


def build(name: str, target: Target) -> Callable[[int], None]:  # noqa: ARG001  (all kernels take a target)
    """The kernel `offer` or `work`. The argument is the address of a `Board`."""
    return {"offer": _offer, "work": _work}[name]


def _offer(board: int) -> None:
    """Run the job on the board together with workers. It ends when no worker runs it any more."""
    simd.atomic_store(simd.load_int64(board + _WANTED), board + _HELPERS)
    simd.atomic_add(board + _JOBS, 1)
    simd.call(simd.load_int64(board + _FUNCTION), simd.load_int64(board + _ARGUMENTS))
    simd.atomic_store(0, board + _HELPERS)
    looks = 0
    while simd.atomic_load(board + _ACTIVE) > 0:
        looks += 1
        if looks > _SPINS:
            simd.call(simd.load_int64(board + _GIVE_WAY), 0)


def _work(board: int) -> None:
    """Help with jobs until there has been none for a while."""
    seen = simd.atomic_load(board + _JOBS)
    looks = 0
    while looks < _PATIENCE and simd.atomic_load(board + _STOPPED) == 0:
        jobs = simd.atomic_load(board + _JOBS)
        if jobs == seen:
            looks += 1
            if looks > _SPINS:
                simd.call(simd.load_int64(board + _GIVE_WAY), 0)
        else:
            seen = jobs
            looks = 0
            # The job may be over: then no worker is taken. While one is counted, the board does not change.
            if simd.atomic_add(board + _ACTIVE, 1) < simd.atomic_load(board + _HELPERS):
                simd.call(simd.load_int64(board + _FUNCTION), simd.load_int64(board + _ARGUMENTS))
            simd.atomic_add(board + _ACTIVE, -1)
