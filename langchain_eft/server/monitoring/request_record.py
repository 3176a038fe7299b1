"""What is logged and counted about one request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from langchain_eft.engine.events import Finished, TextDelta


@dataclass
class RequestRecord:
    """What is logged and counted about a request. The route fills it.

    Attributes:
        model: The model as the caller named it.
        mixture: Its weights, as plain numbers and dictionaries.
        upscale_strength: How much of the large model it adds.
        stream: Whether the answer was streamed.
        prompt_tokens: Tokens of all prompts.
        cached_tokens: How many of them were in the prefix cache.
        completion_tokens: Tokens of all answers.
        drafted_tokens: Draft tokens.
        accepted_tokens: Draft tokens that were accepted.
        finish_reasons: Why each answer ended.
        time_to_first_token: Seconds from the request to the first token.
        intervals: Seconds between tokens: one for each round of an answer after its first, and its tokens.
        started: When the request came, as `time.perf_counter` counts.
        body: The body as JSON, where texts are logged.
        texts: The answers, where texts are logged.
    """

    model: str = ""
    mixture: dict[str, Any] = field(default_factory=dict)
    upscale_strength: float = 1.0
    stream: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    time_to_first_token: float | None = None
    intervals: list[tuple[float, int]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    body: Any = None
    texts: dict[int, str] = field(default_factory=dict)
    _last_token: dict[int, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self.started

    def delivered(self, answer: int, event: TextDelta) -> None:
        """Count the tokens of a round.

        Args:
            answer: Number of the answer that they belong to.
            event: The round's part of it.
        """
        now, tokens = self.seconds, len(event.tokens)
        self.completion_tokens += tokens
        if self.time_to_first_token is None:
            self.time_to_first_token = now
        if answer in self._last_token and tokens:
            self.intervals.append(((now - self._last_token[answer]) / tokens, tokens))
        self._last_token[answer] = now
        if self.body is not None:
            self.texts[answer] = self.texts.get(answer, "") + event.text

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
        self.drafted_tokens += event.drafted_tokens
        self.accepted_tokens += event.accepted_tokens
        self.finish_reasons.append(reason)

    def decoding(self) -> dict[str, Any]:
        """What was decoded, as JSON; nothing for a request that decodes nothing."""
        if not self.model:
            return {}
        fields = {
            "model": self.model,
            "mixture": self.mixture,
            "upscale_strength": self.upscale_strength,
            "stream": self.stream,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "drafted_tokens": self.drafted_tokens,
            "accepted_tokens": self.accepted_tokens,
            "finish_reasons": self.finish_reasons,
            "time_to_first_token": self.time_to_first_token and round(self.time_to_first_token, 4),
        }
        texts = {"body": self.body, "texts": [text for _, text in sorted(self.texts.items())]}
        return fields if self.body is None else {**fields, **texts}
