"""Errors in OpenAI's shape: which status an error has, and how it is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from langchain_eft.engine.error_text import describe_parts, place_of, shortened_message, shown
from langchain_eft.engine.errors import ContextWindowError, DecodingError, EngineError
from langchain_eft.remote.error_table import NO_RETRY, row_of

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
"""OpenAI's type of an error, by status. Other statuses below 500 are errors of the request."""


class HTTPError(Exception):
    """An error that the server answers with.

    Attributes:
        status: HTTP status.
        message: What is wrong, and the remedy.
        param: The field of the body that it concerns.
        code: A word for programs.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, shortened_message(message)
        self.param, self.code, self.headers = param, code, dict(headers or {})

    @property
    def kind(self) -> str:
        """OpenAI's type of the error."""
        return _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")


def http_error(error: Exception) -> HTTPError:
    """Any error as one that the server answers with."""
    match error:
        case HTTPError():
            return error
        case RequestValidationError():
            return invalid(422, error.errors())
        case ValidationError():
            return invalid(400, error.errors(include_url=False))
        case HTTPException():
            return HTTPError(error.status_code, str(error.detail), headers=error.headers)
        case EngineError():
            return _of_engine(error)
    return HTTPError(500, "The server failed. Its log has the details.", code="internal_error")


def _of_engine(error: EngineError) -> HTTPError:
    """An error of the engine, with its own message."""
    row, message = row_of(error), str(error)
    if isinstance(error, ContextWindowError):
        # LangChain's client looks for the code in the message; agents then shorten the conversation.
        message = f"{message} ({row.code})"
    fails_again = isinstance(error, DecodingError) and not error.is_retryable
    headers = {**row.headers, **(NO_RETRY if fails_again else {})}
    return HTTPError(row.status, message, param=row.param, code=row.code, headers=headers)


def invalid(status: int, parts: Sequence[Mapping[str, Any]]) -> HTTPError:
    """What pydantic refuses: the first few fields, their values and why.

    Args:
        status: HTTP status.
        parts: What pydantic says about single values.
    """
    return HTTPError(status, describe_parts(parts), param=place_of(parts[0]) or None, code="invalid_value")


def error_body(error: Exception, request_id: str | None = None) -> dict[str, Any]:
    """The body of an error. The event by which a stream fails has the same.

    Args:
        error: Any error.
        request_id: By which the request is found in the log.
    """
    answer = http_error(error)
    body = {"message": answer.message, "type": answer.kind, "param": answer.param, "code": answer.code}
    return {"error": body if request_id is None else {**body, "request_id": request_id}}


def error_response(error: Exception, request_id: str | None = None) -> Response:
    """The answer to a request that failed."""
    answer = http_error(error)
    # ASCII, because the message may quote text that is not valid Unicode, such as lone surrogates.
    body = json.dumps(error_body(error, request_id)).encode("ascii")
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
    return Response(body, answer.status, headers, media_type="application/json")


async def send_error(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error where no route can: in a middleware.

    Args:
        error: The error.
        scope: The request's.
        receive: The request's.
        send: The request's.
    """
    state = scope.setdefault("state", {})
    note_error(state, error)
    await error_response(error, state.get("request_id"))(scope, receive, send)


def note_error(state: dict[str, Any], error: Exception) -> None:
    """Remember an error for the request's log line.

    Args:
        state: The request's state.
        error: The error.
    """
    state["error"] = http_error(error)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of a route in OpenAI's shape."""

    async def handle(request: Request, error: Exception) -> Response:
        answer = http_error(error)
        if answer.status == 429:
            answer.headers["Retry-After"] = str(request.app.state.queue_clock.retry_after())
        if isinstance(error, HTTPException) and answer.message in {"Not Found", "Method Not Allowed"}:
            answer.message = _no_route(request, answer)
        note_error(request.scope["state"], answer)
        return error_response(answer, request.scope["state"].get("request_id"))

    for kind in (HTTPError, EngineError, ValidationError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)


def _no_route(request: Request, answer: HTTPError) -> str:
    path = shown(request.url.path)
    if answer.status == 405:
        allowed = answer.headers.get("Allow") or answer.headers.get("allow")
        return f"{path} does not take {request.method}: use {allowed}."
    return f"There is nothing at {path}: /docs lists what there is. The base URL of a client ends in /v1."
