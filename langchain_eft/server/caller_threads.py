"""Threads for what a body makes to do: nothing whose time grows with it runs on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from fastapi import Request

from langchain_eft.server.protocol.leaving import unless_left

T = TypeVar("T")

_THREADS = 4
"""Threads of all callers."""

_EACH = 2
"""Threads of one caller."""


class CallerThreads:
    """Runs work in threads. A caller has few of them at a time, and none can keep the others from theirs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "eft-body")
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, request: Request, work: Callable[..., T], *args: Any) -> T:
        """The result of some work. Work that has not begun is dropped once the client has left.

        Args:
            request: The request that needs it, whose body has been read.
            work: What is called in a thread.
            args: Its arguments.

        Raises:
            HTTPError: The client has left.
        """
        return await unless_left(request, self._in_turn(self.turns(request), partial(work, *args)))

    def turns(self, request: Request) -> asyncio.Semaphore:
        """What a caller holds while a thread works for it."""
        return self._turns.setdefault(_caller(request), asyncio.Semaphore(_EACH))

    async def _in_turn(self, turns: asyncio.Semaphore, work: Callable[[], T]) -> T:
        await turns.acquire()
        loop = asyncio.get_running_loop()

        def free(_: Future[T]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(turns.release)

        working = self._pool.submit(work)
        working.add_done_callback(free)  # a thread goes on when its client has left, and keeps its turn
        return await asyncio.wrap_future(working)

    def close(self) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _caller(request: Request) -> str:
    """A key's name, or an address where no keys are needed."""
    name: str = request.state.caller.name
    return name or (request.client.host if request.client else "")
