"""HTTP for all remote engines of the process: one thread, one event loop, one pool of connections.

Callers have event loops of their own, or none, and theirs come and go. So requests run on a loop that stays.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import socket
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from langchain_eft.engine.errors import EngineError, EngineUnreachableError
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.errors import status_error

T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_SHORT_SECONDS = 60.0
"""Time for answers that nothing is decoded for."""

_IDLE_SECONDS = 3.0
"""Idle connections are closed after this time, before servers do so: uvicorn closes them after 5 s."""

_LONGEST_PAUSE = 60.0
"""A server that wants a longer pause is not asked again."""

_LONGEST_STEP = 8.0
"""Longest pause of this client's own choice."""

_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]
"""Finds servers that are gone: a server may be silent for long, because a request waits in its queue."""


class Connection:
    """A thread with an event loop, on which requests run."""

    def __init__(self) -> None:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=64, keepalive_expiry=_IDLE_SECONDS
        )
        transport = httpx.AsyncHTTPTransport(limits=limits, socket_options=_KEEPALIVE)
        timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        self._client = httpx.AsyncClient(transport=transport, timeout=timeout, follow_redirects=False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="eft-remote", daemon=True)
        self._thread.start()
        atexit.register(self._end)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine; cancelling its future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for its result."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: then it must not go on
            future.cancel()
            raise

    def get(self, endpoint: Endpoint, path: str, **query: str) -> httpx.Response:
        """The whole answer to a GET request.

        Raises:
            EngineError: As `stream`.
        """
        return self.wait(self._whole(endpoint, "GET", path, params=query or None, timeout=_SHORT_SECONDS))

    def post(self, endpoint: Endpoint, path: str, json: Any, headers: dict[str, str]) -> httpx.Response:
        """The whole answer to a POST request.

        Raises:
            EngineError: As `stream`.
        """
        return self.wait(self._whole(endpoint, "POST", path, json=json, headers=headers))

    async def apost(
        self, endpoint: Endpoint, path: str, json: Any, headers: dict[str, str]
    ) -> httpx.Response:
        """As `post`, from another event loop; cancelling it closes the connection."""
        return await asyncio.wrap_future(
            self.start(self._whole(endpoint, "POST", path, json=json, headers=headers))
        )

    async def _whole(self, endpoint: Endpoint, method: str, path: str, **options: Any) -> httpx.Response:
        async with self.stream(endpoint, method, path, **options) as response:
            try:
                await response.aread()
            except httpx.HTTPError as error:
                raise _unreachable(response.url, error) from error
        return response

    @asynccontextmanager
    async def stream(
        self, endpoint: Endpoint, method: str, path: str, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """The answer to a request, whose body is read in pieces.

        A request that no server has begun to answer is sent again, up to `max_retries` times: where nothing
        listens, or where the server says when to come back.

        Args:
            endpoint: Where the request goes.
            method: The HTTP method.
            path: The path behind the base URL.
            options: Further arguments of httpx' requests.

        Raises:
            EngineUnreachableError: There is no connection.
            EngineError: The server answers with an error.
        """
        request = self._client.build_request(method, f"{endpoint.url}{path}", **options)
        request.headers.update(endpoint.headers)
        response = await self._answer(request, endpoint.max_retries)
        try:
            yield response
        finally:
            await response.aclose()

    async def _answer(self, request: httpx.Request, retries: int) -> httpx.Response:
        """The answer to a request, whose body is not read yet.

        Args:
            request: The request.
            retries: How often it may be sent again.
        """
        attempt = 0
        while True:
            try:
                response = await self._client.send(request, stream=True)
            except httpx.HTTPError as error:
                refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                failure: EngineError = _unreachable(request.url, error)
                pause = 0.0 if refused else None
            else:
                if response.is_success:
                    return response
                failure, pause = await _refusal(response), _requested_pause(response)
            if pause is None or attempt >= retries:
                raise failure
            await asyncio.sleep(pause + _pause(attempt))
            attempt += 1

    def _end(self) -> None:
        """Close all connections before the interpreter exits."""

        async def close() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await self._client.aclose()

        if self._thread.is_alive():  # in the child of a fork it is not
            self.start(close()).add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
            self._thread.join(timeout=5)


def _unreachable(url: httpx.URL, error: httpx.HTTPError) -> EngineUnreachableError:
    reason = str(error) or type(error).__name__
    unreachable = EngineUnreachableError(
        f"The connection to {url} fails ({reason}): check `base_url`, and whether the server runs."
    )
    unreachable.__cause__ = error
    return unreachable


async def _refusal(response: httpx.Response) -> EngineError:
    """Why a server does not do what it is asked."""
    try:
        return status_error(response.status_code, await response.aread(), response.headers)
    except httpx.HTTPError as error:
        return _unreachable(response.url, error)
    finally:
        await response.aclose()


def _pause(attempt: int) -> float:
    """Seconds before a further attempt: longer each time, and different for every client."""
    return min(0.5 * 2.0**attempt, _LONGEST_STEP) * random.uniform(0.5, 1.0)


def _requested_pause(response: httpx.Response) -> float | None:
    """Seconds that a busy server wants; None if the request must not be sent again."""
    seconds = response.headers.get("retry-after", "")
    if response.status_code not in (429, 503) or not seconds.isdecimal():
        return None
    return float(seconds) if float(seconds) <= _LONGEST_PAUSE else None


_shared: Connection | None = None
_making = threading.Lock()


def connection() -> Connection:
    """The connection of this process."""
    global _shared
    with _making:
        _shared = _shared or Connection()
        return _shared


def _forget() -> None:
    """Begin anew in a forked process, which has none of the threads."""
    global _shared, _making
    _shared, _making = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
