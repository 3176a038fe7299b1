"""Kernels for `programs` and `threads`: how a thread runs steps, and how workers help it."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import sizeof

from langchain_eft.engine.kernels import simd
from langchain_eft.engine.kernels.compiler import inlined
from langchain_eft.engine.kernels.program import Call, Extent, Step, Work
from langchain_eft.engine.kernels.structures import reader
from langchain_eft.engine.kernels.target import Target
from langchain_eft.engine.kernels.threads import Board

_JOBS, _HELPERS, _ACTIVE = Board.jobs.offset, Board.helpers.offset, Board.active.offset
_STOPPED, _FUNCTION, _ARGUMENTS = Board.stopped.offset, Board.function.offset, Board.arguments.offset
_RUNNING, _GIVE_WAY = Board.running.offset, Board.give_way.offset
_ROWS, _DRAWN, _ENTERED, _MAY_WORK = (
    Work.rows.offset,
    Work.drawn.offset,
    Work.entered.offset,
    Work.threads.offset,
)
_STEP_BYTES = sizeof(Step)
_read_call = reader(Call)
_read_step = reader(Step, extent=Extent)

_FEWEST_SHARED = 1 << 18
"""Cost of a step for which it is worth to wake a worker: some 20 us of work."""

_SPINS = 2000
"""Looks for a job before a thread lets others have the processor: about 10 us."""

_PATIENCE = 3000
"""Looks for a job before a worker goes to sleep: some 0.5 ms, so that it does not between two programs."""


def build(name: str, target: Target) -> Callable[[int], None]:  # noqa: ARG001  (all kernels take a target)
    """The kernel `run`, whose argument is the address of a `Call`, or `work`, that of a `Board`."""
    return {"run": _run, "work": _work}[name]


def _run(program: int) -> None:
    """Run the steps of a program, the larger ones together with workers."""
    call = _read_call(program)
    if call.threads > 1:
        simd.atomic_store(1, call.board + _RUNNING)
    for at in range(call.steps, call.end, _STEP_BYTES):
        step = _read_step(at)
        if step.rows > 0:
            shared = call.threads > 1 and step.rows * step.length * step.cost >= _FEWEST_SHARED
            simd.store_int64(step.rows, step.arguments + _ROWS)
            simd.store_int64(0, step.arguments + _DRAWN)
            simd.store_int64(0, step.arguments + _ENTERED)
            simd.store_int64(call.threads if shared else 1, step.arguments + _MAY_WORK)
            if shared:
                offer(call.board, step.kernel, step.arguments, call.threads - 1)
            else:
                simd.call(step.kernel, step.arguments)
    if call.threads > 1:
        simd.atomic_store(0, call.board + _RUNNING)


@inlined
def offer(board: int, kernel: int, arguments: int, helpers: int) -> None:
    """Run a job together with workers. It ends when no worker runs it any more."""
    simd.store_int64(kernel, board + _FUNCTION)
    simd.store_int64(arguments, board + _ARGUMENTS)
    simd.atomic_store(helpers, board + _HELPERS)
    simd.atomic_add(board + _JOBS, 1)
    simd.call(kernel, arguments)
    simd.atomic_store(0, board + _HELPERS)
    looks = 0
    while simd.atomic_load(board + _ACTIVE) > 0:
        looks += 1
        if looks > _SPINS:
            simd.call(simd.load_int64(board + _GIVE_WAY), 0)


def _work(board: int) -> None:
    """Help with jobs until there has been none for a while, and no program runs."""
    seen = simd.atomic_load(board + _JOBS)
    looks = 0
    while (looks < _PATIENCE or simd.atomic_load(board + _RUNNING) == 1) and simd.atomic_load(
        board + _STOPPED
    ) == 0:
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
