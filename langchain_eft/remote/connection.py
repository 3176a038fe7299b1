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
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpx

from langchain_eft.engine.errors import EngineError, EngineUnreachableError
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.error_table import ServerLoadingError
from langchain_eft.remote.errors import status_error

T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_SHORT_SECONDS = 60.0
"""Time for the beginning of an answer that nothing is decoded for."""

_BODY_SECONDS = 600.0
"""Time for the rest of it: a tokenizer has tens of megabytes."""

_LARGEST_BODY = 64 * 2**20
_LARGEST_REFUSAL = 64 * 2**10
_REFUSAL_SECONDS = 10.0
"""Bytes of whole bodies and of the body of a refusal, and time for that: what it has by then must do."""

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
        self._client = httpx.AsyncClient(
            transport=transport,
            timeout=timeout,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"},  # a few bytes may be gigabytes once they are unpacked
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # callers share this client
        )
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

    def get(self, endpoint: Endpoint, path: str, largest: int, **query: str) -> httpx.Response:
        """The whole answer to a GET request.

        Args:
            endpoint: Where the request goes.
            path: The path behind the base URL.
            largest: Bytes that the answer may have.
            query: Parameters of the URL.

        Raises:
            EngineError: As `stream`.
            ValueError: A body that is too long, or compressed.
        """
        limits = {"seconds": _SHORT_SECONDS, "body_seconds": _BODY_SECONDS}
        return self.wait(self._whole(endpoint, "GET", path, largest, params=query or None, **limits))

    def post(self, endpoint: Endpoint, path: str, json: Any, headers: dict[str, str]) -> httpx.Response:
        """The whole answer to a POST request.

        Raises:
            EngineError: As `stream`.
            ValueError: As `get`.
        """
        return self.wait(self._whole(endpoint, "POST", path, _LARGEST_BODY, json=json, headers=headers))

    async def apost(
        self, endpoint: Endpoint, path: str, json: Any, headers: dict[str, str]
    ) -> httpx.Response:
        """As `post`, from another event loop; cancelling it closes the connection."""
        return await asyncio.wrap_future(
            self.start(self._whole(endpoint, "POST", path, _LARGEST_BODY, json=json, headers=headers))
        )

    async def _whole(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        largest: int,
        *,
        body_seconds: float | None = None,
        **options: Any,
    ) -> httpx.Response:
        async with self.stream(endpoint, method, path, **options) as response:
            try:
                async with asyncio.timeout(body_seconds):
                    content = b"".join([piece async for piece in body(response, largest)])
            except (httpx.HTTPError, TimeoutError) as error:
                raise _unreachable(response.url, error) from error
        return httpx.Response(response.status_code, headers=response.headers, content=content)

    @asynccontextmanager
    async def stream(
        self, endpoint: Endpoint, method: str, path: str, *, seconds: float | None = None, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """The answer to a request, whose body is read in pieces: see `body`.

        A request that no server has begun to answer is sent again, up to `max_retries` times: where nothing
        listens, or where the server says when to come back. A server that loads its model is waited for.

        Args:
            endpoint: Where the request goes.
            method: The HTTP method.
            path: The path behind the base URL.
            seconds: Time for the beginning of the answer.
            options: Further arguments of httpx' requests.

        Raises:
            EngineUnreachableError: There is no connection.
            EngineError: The server answers with an error.
        """
        url = f"{endpoint.url}{path}"
        try:
            request = self._client.build_request(method, url, **options)
        except httpx.InvalidURL as error:
            raise _unreachable(url, error) from error
        request.headers.update(endpoint.headers)
        response = await self._answer(request, endpoint.max_retries, seconds)
        try:
            yield response
        finally:
            await response.aclose()

    async def _answer(self, request: httpx.Request, retries: int, seconds: float | None) -> httpx.Response:
        """The answer to a request, whose body is not read yet.

        Args:
            request: The request.
            retries: How often it may be sent again.
            seconds: Time for the beginning of the answer.
        """
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(seconds):
                    response = await self._client.send(request, stream=True)
            except (httpx.HTTPError, TimeoutError) as error:
                refused = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                failure: EngineError = _unreachable(request.url, error)
                pause = 0.0 if refused else None
            else:
                if response.is_success:
                    return response
                failure, pause = await _refusal(response), _requested_pause(response)
            if isinstance(failure, ServerLoadingError):
                retries += 1  # however long it takes
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


async def body(response: httpx.Response, largest: int) -> AsyncGenerator[bytes, None]:
    """The body of an answer, in the pieces that arrive.

    Args:
        response: The answer.
        largest: Bytes that it may have.

    Raises:
        HTTPError: The connection breaks.
        ValueError: It is longer, or compressed.
    """
    if _is_compressed(response):
        raise ValueError("a body that is compressed, which this client does not ask for")
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > largest:
            raise ValueError(f"a body of more than {largest} bytes")
        yield piece


def _is_compressed(response: httpx.Response) -> bool:
    return bool(response.headers.get("content-encoding", "identity") != "identity")


def _unreachable(url: httpx.URL | str, error: Exception) -> EngineUnreachableError:
    """There is no connection, or it broke.

    Args:
        url: Where to.
        error: What httpx says. Of a request that cannot be sent nothing is shown, for it may hold a key.
    """
    secret = isinstance(error, httpx.LocalProtocolError)
    reason = "" if secret else str(error)[:200]
    unreachable = EngineUnreachableError(
        f"The connection to {url} fails ({reason or type(error).__name__}): check `base_url`, and whether "
        "the server runs."
    )
    unreachable.__cause__ = None if secret else error
    return unreachable


async def _refusal(response: httpx.Response) -> EngineError:
    """Why a server does not do what it is asked."""
    content = b""
    try:
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(_REFUSAL_SECONDS):
                async for piece in response.aiter_raw():
                    content += piece
                    if len(content) > _LARGEST_REFUSAL:
                        break
    finally:
        await response.aclose()
    return status_error(response.status_code, b"" if _is_compressed(response) else content, response.headers)


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
