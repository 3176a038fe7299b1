"""Answers as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from fastapi import Request
from pydantic_core import to_json
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from langchain_eft.server.errors import error_body, note_error
from langchain_eft.server.protocol.leaving import unless_left

Chunks = AsyncGenerator[Mapping[str, Any], None]

_PATIENCE = 5.0
"""Seconds that the first chunk may take before the headers are sent without it."""

_DONE = b"data: [DONE]\n\n"


async def event_stream(request: Request, chunks: Chunks) -> EventSourceResponse:
    """A response that sends every chunk as soon as it is there, and then `[DONE]`.

    A request that cannot be served fails here, with its own status. A failure midway is the last event.
    When the client leaves, `chunks` is closed.

    Args:
        request: The request, whose body has been read.
        chunks: What is sent; at least one.

    Raises:
        Exception: Whatever `chunks` raises before its first chunk.
    """
    first = asyncio.ensure_future(anext(chunks))
    try:
        await unless_left(request, asyncio.wait({first}, timeout=_PATIENCE))
        if first.done():
            first.result()
    except BaseException:
        first.cancel()
        raise
    return _Stream(request, first, chunks)


class _Stream(EventSourceResponse):
    """Sends the chunks, and closes them at its end, whichever way it ends."""

    def __init__(self, request: Request, first: asyncio.Future[Mapping[str, Any]], chunks: Chunks) -> None:
        self._first, self._chunks = first, chunks
        super().__init__(
            _events(request, first, chunks),
            sep="\n",
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
            shutdown_grace_period=request.app.state.serving.settings.drain_seconds,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # The client may have left before anything was read of the chunks.
            self._first.cancel()
            await asyncio.wait({self._first})
            await self._chunks.aclose()


async def _events(
    request: Request, first: asyncio.Future[Mapping[str, Any]], chunks: Chunks
) -> AsyncIterator[bytes]:
    try:
        yield _event(await first)
        async for chunk in chunks:
            yield _event(chunk)
    except Exception as error:  # noqa: BLE001  (the status is sent already)
        note_error(request.scope["state"], error)
        yield _event(error_body(error, request.state.request_id))
    yield _DONE


def _event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: " + json_bytes(chunk) + b"\n\n"


def json_bytes(value: Any) -> bytes:
    """JSON that every client can read: infinite numbers, which it does not have, are null."""
    return to_json(value, inf_nan_mode="null")


def json_response(value: Any) -> Response:
    """An answer of plain values. FastAPI would first look at each of them, on the event loop."""
    return Response(json_bytes(value), media_type="application/json")
