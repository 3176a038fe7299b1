"""The end of a server: running answers end, and new requests are refused."""

from __future__ import annotations

import math
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_eft.server.errors import HTTPError, send_error

_ALWAYS = frozenset({"/health", "/metrics"})
"""What monitors ask while a server drains."""


class Draining:
    """Whether the server drains, and what it waits for.

    Args:
        seconds: Seconds that running answers get.

    Attributes:
        running: Number of requests that are being answered.
    """

    def __init__(self, seconds: float) -> None:
        self.running = 0
        self._seconds = seconds
        self._deadline: float | None = None

    def begin(self) -> None:
        """Refuse new requests from now on."""
        self._deadline = time.monotonic() + self._seconds

    @property
    def begun(self) -> bool:
        """Whether new requests are refused."""
        return self._deadline is not None

    @property
    def remaining_seconds(self) -> float:
        """Seconds that running answers still have."""
        return math.inf if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the server may end: it drains, and nothing runs, or time is up."""
        return self.begun and (self.running == 0 or self.remaining_seconds == 0)


class DrainingMiddleware:
    """Counts the requests that are being answered, and refuses new ones while the server drains.

    Args:
        app: What serves the others.
        draining: Whether the server drains.
    """

    def __init__(self, app: ASGIApp, draining: Draining) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self._app(scope, receive, send)
            return
        if self._draining.begun:
            await send_error(_stopping(self._draining.remaining_seconds), scope, receive, send)
            return
        self._draining.running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._draining.running -= 1


def _stopping(remaining_seconds: float) -> HTTPError:
    return HTTPError(
        503,
        "This server is stopping and ends the answers that run: try again when it is back.",
        code="draining",
        headers={"Retry-After": str(math.ceil(remaining_seconds) + 1), "Connection": "close"},
    )
