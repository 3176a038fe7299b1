"""The events that the engine delivers to a caller: pieces of an answer, its end, or its failure."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from langchain_eft.engine.token_trace import TokenTrace

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class TokenLogprobs:
    """The formula's log p at one position of an answer, before penalties, temperature, filters and grammar.

    Attributes:
        logprob: log p of the token that was drawn.
        top: Ids and log p of the most probable tokens.
    """

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class TextDelta:
    """The part of an answer that one round adds; or, at its beginning, the request's `answer_prefix`.

    Attributes:
        text: Text that can be shown now; may be empty. It contains no stop string.
        tokens: Token ids drawn in this round, the end token included; or those of the prefix.
        pieces: Text of each token, stop strings included. A character that spreads over several tokens
            belongs to the last of them. End tokens have no text.
        logprobs: One for each token drawn, if the request asks for them; a prefix has none.
        traces: The same.
        cut: Number of characters at the end of all pieces so far that a stop string removes from the text.
        at: When it came, by `time.perf_counter`.
    """

    text: str
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    traces: tuple[TokenTrace, ...] = ()
    cut: int = 0
    at: float = field(default_factory=time.perf_counter, compare=False)


def acceptance_rate(accepted: int, drafted: int) -> float | None:
    """Share of the draft tokens that were accepted; None where none were drafted."""
    return accepted / drafted if drafted else None


@dataclass(frozen=True)
class Finished:
    """The end of a completion.

    Attributes:
        reason: `stop` (end token or stop string) or `length`.
        prompt_tokens: Tokens that the caller gave: main prompt and answer prefix.
        completion_tokens: Tokens drawn, the end token included.
        cached_tokens: Tokens among `prompt_tokens` whose keys and values were in the prefix cache.
        drafted_tokens: Number of draft tokens.
        accepted_tokens: Number of accepted draft tokens.
        verify_passes: Rounds that drew tokens. Each yields its accepted draft tokens and one more token.
        time_to_first_token: Seconds from submission to the first token.
        seconds: Seconds from submission to the end.
        context_tokens: The same as `prompt_tokens` of the other prompts that the terms read, by name.
        unreported: Names of the counters above that a server does not report; here they are 0.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    verify_passes: int
    time_to_first_token: float
    seconds: float
    context_tokens: dict[str, int] = field(default_factory=dict)
    unreported: frozenset[str] = frozenset()

    @property
    def acceptance_rate(self) -> float | None:
        """Share of the draft tokens that were accepted; None where none were drafted."""
        return acceptance_rate(self.accepted_tokens, self.drafted_tokens)

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second after the first token; 0 if there is only one."""
        decoding = self.seconds - self.time_to_first_token
        return (self.completion_tokens - 1) / decoding if decoding > 0 else 0.0


@dataclass(frozen=True)
class Failed:
    """The end of a completion that failed."""

    error: Exception


Event = TextDelta | Finished | Failed
