"""How large and slow the body of a request may be."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_eft.server.errors import HTTPError, send_error
from langchain_eft.server.settings import ServerSettings

_CLOSE = {"Connection": "close"}
"""The rest of a body that was not read must not be taken for the next request."""


class BodyMiddleware:
    """Reads the body of a request, before anything else looks at it.

    Args:
        app: Receives the body in one piece.
        settings: The limits.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except HTTPError as error:
            await send_error(error, scope, receive, send)
            return
        if body is not None:  # otherwise the client has left
            replayed = _replayed(body, receive)
            del body  # it may be large, and the answer long
            await self._app(scope, replayed, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if the client leaves before it has sent it.

        Raises:
            HTTPError: It is too large, or takes too long.
        """
        limit, seconds = self._settings.max_body_bytes, self._settings.body_seconds
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or len(declared) > 20 or int(declared) > limit:
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise _too_large(limit)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise HTTPError(
                408,
                f"The body was not complete after {seconds:g} seconds: send it faster, or send less.",
                code="slow_body",
                headers=_CLOSE,
            ) from None


def _too_large(limit: int) -> HTTPError:
    return HTTPError(
        413,
        f"The body is larger than {limit} bytes: send less, or let the operator of this server raise "
        "--max-body-bytes.",
        code="body_too_large",
        headers=_CLOSE,
    )


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the body in one message, and after it whatever the connection says."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
