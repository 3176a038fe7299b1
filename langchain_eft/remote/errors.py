"""Errors of servers as the engine's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from langchain_eft.engine.error_text import describe
from langchain_eft.engine.errors import (
    AuthenticationError,
    CheckpointNotFoundError,
    ContextWindowError,
    DecodingError,
    EngineClosedError,
    EngineError,
    PermissionDeniedError,
    QueueFullError,
    RecipeError,
    RequestError,
    RequestTimeoutError,
)


class ServerBusyError(QueueFullError):
    """The server has too many requests."""

    def __init__(self, message: str) -> None:
        EngineError.__init__(self, message)


class ServerTimeoutError(RequestTimeoutError):
    """The server gave an answer up, because it took too long."""

    def __init__(self, message: str) -> None:
        EngineError.__init__(self, message)


class ServerContextError(ContextWindowError):
    """Prompt and answer do not fit the window of the server, which is smaller than it said."""

    def __init__(self, message: str) -> None:
        EngineError.__init__(self, message)


class ServerChangedError(EngineClosedError):
    """The server has other models than when it was asked what it serves."""


def status_error(status: int, body: bytes, headers: Mapping[str, str]) -> EngineError:
    """The error that a server answers with.

    Args:
        status: The HTTP status.
        body: The body, in OpenAI's form where a server of models has written it.
        headers: The headers.
    """
    error = _content(body)
    message = error.get("message") or body[:200].decode(errors="replace").strip() or "no reason"
    said = f"The server answers with status {status}: {str(message)[:_LONGEST_MESSAGE]}"
    return _error(status, said, error.get("code"), headers)


def event_error(error: Mapping[str, Any]) -> EngineError:
    """The error by which a stream ends.

    Args:
        error: What its last event says, in OpenAI's form.
    """
    code = error.get("code")
    status = code if isinstance(code, int) else _STATUS.get(str(code), 500)
    said = f"The server ends the answer: {str(error.get('message'))[:_LONGEST_MESSAGE]}"
    return _error(status, said, code, {})


_LONGEST_MESSAGE = 4000
"""Characters of a server's message that are shown."""

_STATUS = {
    "timeout": 408,
    "engine_closed": 503,
    "device_lost": 503,
    "invalid_value": 400,
    "invalid_mixture": 400,
    "context_length_exceeded": 400,
}
"""Statuses of the errors of `langchain-eft serve` that may end a stream, by code."""


_TOO_LONG = re.compile(r"maximum (context|model) length|model's context length|context_length_exceeded")
"""How vLLM, which gives no code, and proxies speak of a request that does not fit."""


def _content(body: bytes) -> Mapping[str, Any]:
    try:
        content = from_json(body)
    except ValueError:
        return {}
    error = content.get("error", content) if isinstance(content, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def _error(status: int, message: str, code: Any, headers: Mapping[str, str]) -> EngineError:
    match status:
        case 401:
            return AuthenticationError(f"{message} Give it as `api_key`, or in LANGCHAIN_EFT_API_KEY.")
        case 403:
            return PermissionDeniedError(message)
        case 404:
            return CheckpointNotFoundError(message)
        case 408 | 504:
            return ServerTimeoutError(message)
        case 412:
            return ServerChangedError(message)
        case 429:
            return ServerBusyError(message)
        case 502 | 503:
            return EngineClosedError(message)
    if status == 400 and (code == "context_length_exceeded" or _TOO_LONG.search(message)):
        return ServerContextError(message)
    if status < 500:
        return RecipeError(message) if code == "invalid_mixture" else RequestError(message)
    return DecodingError(message, is_retryable=headers.get("x-should-retry") != "false")


def malformed(url: str, reason: ValueError) -> EngineError:
    """The error of an answer that is not what a server of models says.

    Args:
        url: Who answers.
        reason: What was wrong with it. There may be millions of wrong values, so a few are described.
    """
    text = str(reason)
    if isinstance(reason, ValidationError):
        count = reason.error_count()
        text = describe(reason) if count <= _MOST_DESCRIBED else f"{count} wrong values"
    return DecodingError(
        f"{url} answers with something that is no answer of `langchain-eft serve` or of vLLM "
        f"({text[:500]}): check `base_url`, and that client and server have the same version.",
        is_retryable=False,
    )


_MOST_DESCRIBED = 5
