"""Errors of servers as the engine's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from langchain_eft.engine.error_text import describe, shortened_message
from langchain_eft.engine.errors import AuthenticationError, ContextWindowError, DecodingError, EngineError
from langchain_eft.remote.error_table import received

_TOO_LONG = re.compile(r"maximum (context|model) length|model's context length|context_length_exceeded")
"""How vLLM, which gives no code, and proxies speak of a request that does not fit."""

_MOST_DESCRIBED = 5
"""Wrong values of an answer that are described."""


def status_error(status: int, body: bytes, headers: Mapping[str, str]) -> EngineError:
    """The error that a server answers with.

    Args:
        status: The HTTP status.
        body: The body, in OpenAI's form where a server of models has written it.
        headers: The headers.
    """
    error = _content(body)
    message = error.get("message") or body[:200].decode(errors="replace").strip() or "no reason"
    said = f"The server answers with status {status}: {shortened_message(str(message))}"
    kind = received(status, error.get("code"))
    if kind is AuthenticationError:
        return kind(f"{said} Give it as `api_key`, or in LANGCHAIN_EFT_API_KEY.")
    if status == 400 and _TOO_LONG.search(said):
        return ContextWindowError(said)
    if kind is DecodingError:
        return DecodingError(said, is_retryable=headers.get("x-should-retry") != "false")
    return kind(said)


def event_error(error: Mapping[str, Any]) -> EngineError:
    """The error by which a stream ends.

    Args:
        error: What its last event says, in OpenAI's form.
    """
    code = error.get("code")
    said = f"The server ends the answer: {shortened_message(str(error.get('message')))}"
    return received(code if isinstance(code, int) else None, code)(said)


def _content(body: bytes) -> Mapping[str, Any]:
    try:
        content = from_json(body)
    except ValueError:
        return {}
    error = content.get("error", content) if isinstance(content, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


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
