"""How large, slow, deep and long the body of a request may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, NoReturn

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_eft.engine.error_text import shown
from langchain_eft.server.errors import HTTPError, send_error
from langchain_eft.server.settings import ServerSettings

_SHORT = 65_536
"""Bytes that are parsed so fast that no other request notices."""

_CLOSE = {"Connection": "close"}
"""The rest of a body that was not read must not be taken for the next request."""


class BodyMiddleware:
    """Reads the body of a request and checks its form, before anything else looks at it.

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
            if body is not None and scope["method"] == "POST":
                await self._check(scope, body)
        except HTTPError as error:
            await send_error(error, scope, receive, send)
            return
        if body is not None:  # otherwise the client has left
            await self._app(scope, _replayed(body, receive), send)

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

    async def _check(self, scope: Scope, body: bytes) -> None:
        """Parse a body and check its form.

        Raises:
            HTTPError: It is not JSON, or does not say so, or is nested too deeply, or has too many tools.
        """
        _require_json(next((value for name, value in scope["headers"] if name == b"content-type"), b""))
        if len(body) <= _SHORT:
            parsed = parse_json(body, self._settings.max_json_depth)
        else:
            parsed = await asyncio.to_thread(parse_json, body, self._settings.max_json_depth)
        tools = parsed.get("tools") if isinstance(parsed, dict) else None
        if isinstance(tools, list) and len(tools) > self._settings.max_tools:
            raise HTTPError(
                400,
                f"The request has {len(tools)} tools, and this server takes {self._settings.max_tools}: send "
                "those that this turn needs.",
                param="tools",
                code="array_above_max_length",
            )
        if self._settings.log_texts:
            scope["state"]["record"].body = parsed


def _require_json(content_type: bytes) -> None:
    """Refuse a body that does not say that it is JSON: a page of another site can send one without asking.

    Raises:
        HTTPError: 415.
    """
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        said = shown(content_type.decode("latin-1"))
        raise HTTPError(
            415,
            f"The body has the content type {said}: send 'Content-Type: application/json', with curl by "
            "-H 'Content-Type: application/json' or --json.",
            code="unsupported_media_type",
        )


def parse_json(body: bytes, max_depth: int) -> Any:
    """A body as JSON in the strict sense: UTF-8, each key of an object once, no NaN.

    Args:
        body: The body.
        max_depth: Largest number of arrays and objects inside one another.

    Raises:
        HTTPError: 400; it is something else, or nested more deeply.
    """
    try:
        parsed = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError as error:
        raise HTTPError(
            400, f"The body is not JSON ({error}): send one JSON object in UTF-8.", code="invalid_json"
        ) from None
    level: list[Any] = [parsed]
    for _ in range(max_depth):
        level = [child for value in level for child in _children(value)]
        if not level:
            return parsed
    if any(isinstance(value, dict | list) for value in level):
        raise _too_deep(max_depth)
    return parsed


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different: programs disagree on which of two values counts.

    Raises:
        ValueError: A key occurs twice.
    """
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        for key, _ in pairs:  # the first that is not there any more has been seen before
            if parsed.pop(key, pairs) is pairs:
                raise ValueError(f"the key {shown(key)} occurs twice in one object")
    return parsed


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _too_deep(max_depth: int) -> HTTPError:
    return HTTPError(
        400,
        f"The body nests more than {max_depth} arrays and objects: send a flatter one.",
        code="too_deep",
    )


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
