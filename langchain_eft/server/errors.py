"""Errors in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from langchain_eft.engine.errors import EngineError


class HTTPError(Exception):
    """An error that the server answers with.

    Attributes:
        status: HTTP status.
        message: What is wrong, and the remedy.
        kind: OpenAI's type of error.
        param: The field of the body that it concerns.
        code: OpenAI's code of the error.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.param, self.code, self.headers = param, code, headers or {}


def http_error(error: Exception) -> HTTPError:
    """Any error as one that the server answers with."""
    if isinstance(error, HTTPError):
        return error
    return HTTPError(400 if isinstance(error, EngineError) else 500, str(error))


def error_body(error: Exception) -> dict[str, Any]:
    """The body of an error; an SSE event has the same."""
    e = http_error(error)
    return {"error": {"message": e.message, "type": e.kind, "param": e.param, "code": e.code}}


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error in OpenAI's shape."""

    async def handle(_: Request, error: Exception) -> Response:
        answer = http_error(error)
        return JSONResponse(error_body(error), answer.status, answer.headers)

    for kind in (HTTPError, EngineError):
        app.add_exception_handler(kind, handle)
