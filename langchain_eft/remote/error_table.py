"""The engine's errors over HTTP, in one table: a server reads it forwards, a client backwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from langchain_eft.engine.errors import (
    AuthenticationError,
    CheckpointNotFoundError,
    ContextWindowError,
    DecodingError,
    DeviceLostError,
    EngineClosedError,
    EngineError,
    InsufficientMemoryError,
    PermissionDeniedError,
    QueueFullError,
    RecipeError,
    RequestError,
    RequestTimeoutError,
)

NO_RETRY = {"x-should-retry": "false"}
"""Tells OpenAI's clients that the same request would fail in the same way."""


class ServerChangedError(EngineClosedError):
    """The server has other models than when it was asked what it serves."""


class ServerLoadingError(EngineClosedError):
    """The server still loads its model."""


class Row(NamedTuple):
    """How a server answers with an error.

    Attributes:
        kind: The error, and those of its subclasses that have no row of their own.
        status: HTTP status.
        code: OpenAI's `code`, a word for programs.
        param: The field of the body that it concerns.
        headers: Headers of the answer.
    """

    kind: type[EngineError]
    status: int
    code: str
    param: str | None = None
    headers: Mapping[str, str] = {}


TABLE = (
    Row(RequestError, 400, "invalid_value"),
    Row(RecipeError, 400, "invalid_mixture", "mixture"),
    Row(ContextWindowError, 400, "context_length_exceeded", "messages"),
    Row(AuthenticationError, 401, "invalid_api_key"),
    Row(PermissionDeniedError, 403, "policy"),
    Row(CheckpointNotFoundError, 404, "model_not_found", "model"),
    Row(RequestTimeoutError, 408, "timeout", headers=NO_RETRY),
    Row(ServerChangedError, 412, "recipe_changed"),
    Row(QueueFullError, 429, "queue_full", headers={"Retry-After": "1"}),
    Row(DecodingError, 500, "decoding_failed"),
    Row(EngineClosedError, 503, "engine_closed", headers={"Retry-After": "5"}),
    Row(ServerLoadingError, 503, "loading", headers={"Retry-After": "5"}),
    Row(InsufficientMemoryError, 503, "engine_closed", headers={"Retry-After": "5"}),
    Row(DeviceLostError, 503, "device_lost", headers={"Retry-After": "30"}),
)
"""A row for each error. Where rows share a code or a status, the first is what a client understands."""

_OTHER = Row(EngineError, 500, "engine_error")

_BY_KIND = {row.kind: row for row in TABLE}
_BY_CODE = {row.code: row for row in reversed(TABLE)}
_BY_STATUS = {row.status: row for row in reversed(TABLE)}

_SAME = {502: 503, 504: 408}
"""Statuses of proxies, and those of the server that they mean."""


def row_of(error: EngineError) -> Row:
    """How a server answers with an error."""
    return next((_BY_KIND[kind] for kind in type(error).__mro__ if kind in _BY_KIND), _OTHER)


def received(status: int | None, code: Any) -> type[EngineError]:
    """The class of an error that a server answers with.

    Args:
        status: HTTP status. The event by which a stream ends has none.
        code: What the server says, if it says any.
    """
    row = _BY_CODE.get(str(code))
    if status is None:
        status = row.status if row else _OTHER.status
    status = _SAME.get(status, status)
    if row is None:
        row = _BY_STATUS.get(status)
    if row is None:
        return RequestError if status < 500 else DecodingError
    # Whatever closes a server, it may come back.
    return EngineClosedError if row.kind in (InsufficientMemoryError, DeviceLostError) else row.kind
