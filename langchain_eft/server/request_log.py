"""One line about each request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from langchain_eft.engine.events import Finished


@dataclass
class RequestRecord:
    """What is logged and counted about a request. The route fills it.

    Attributes:
        model: The model as the caller named it.
        mixture: Its weights, as plain numbers and dictionaries.
        stream: Whether the answer was streamed.
        prompt_tokens: Tokens of all prompts.
        cached_tokens: How many of them were in the prefix cache.
        completion_tokens: Tokens of all answers.
        drafted_tokens: Draft tokens.
        accepted_tokens: Draft tokens that were accepted.
        finish_reasons: Why each answer ended.
        time_to_first_token: Seconds from the request to the first token.
        started: When the request came, as `time.perf_counter` counts.
    """

    model: str = ""
    mixture: dict[str, Any] = field(default_factory=dict)
    stream: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    time_to_first_token: float | None = None
    started: float = field(default_factory=time.perf_counter)

    def first_token(self) -> None:
        """Note the time of the first token; later calls change nothing."""
        if self.time_to_first_token is None:
            self.time_to_first_token = time.perf_counter() - self.started

    def finished(self, event: Finished, reason: str, *, counts_prompt: bool = True) -> None:
        """Count an answer that has ended.

        Args:
            event: Its end.
            reason: Why it ended, in OpenAI's words.
            counts_prompt: False for another answer to a prompt that has been counted.
        """
        if counts_prompt:
            self.prompt_tokens += event.prompt_tokens
            self.cached_tokens += event.cached_tokens
        self.completion_tokens += event.completion_tokens
        self.drafted_tokens += event.drafted_tokens
        self.accepted_tokens += event.accepted_tokens
        self.finish_reasons.append(reason)


class RecordMiddleware:
    """Puts a fresh record into `request.state.record`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["record"] = RequestRecord()
        await self._app(scope, receive, send)
