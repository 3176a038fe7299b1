"""The engine's events, built again from the token ids that a server streams."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from langchain_eft.engine.decoding.answer_text import AnswerText
from langchain_eft.engine.events import Finished, FinishReason, TextDelta, TokenLogprobs
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.engine.token_trace import TokenTrace
from langchain_eft.remote.remote_model import RemoteModel


@dataclass(frozen=True)
class Piece:
    """What a server says at a time.

    Attributes:
        tokens: Further tokens of the answer.
        logprobs: One for each of them, if they are reported.
        traces: The same.
        reason: Why the answer has ended; None until it has.
        counters: Counters of `Finished`, as far as the server reports them.
        context_tokens: Tokens of the other prompts, by name.
    """

    tokens: Sequence[int] = ()
    logprobs: Sequence[TokenLogprobs] = ()
    traces: Sequence[TokenTrace] = ()
    reason: FinishReason | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    context_tokens: Mapping[str, int] = field(default_factory=dict)


COUNTERS = frozenset({"cached_tokens", "drafted_tokens", "accepted_tokens", "verify_passes"})
"""What only the server can count."""


class AnswerReader:
    """Makes events of the pieces of one answer, as the engine makes them of its rounds.

    Args:
        request: What is decoded.
        model: The model that decodes it.
        submitted: When the request was made, by `time.perf_counter`.
    """

    def __init__(self, request: GenerationRequest, model: RemoteModel, submitted: float) -> None:
        self._request, self._submitted = request, submitted
        self._end_ids, self._num_ids = model.end_ids, model.num_ids
        self._text = AnswerText(model.tokenizer, request.visible_tokens, request.stop)
        self._first_token: float | None = None
        self._counters: dict[str, int] = {}
        self._context_tokens: dict[str, int] = {}
        self.num_tokens = 0
        self.reason: FinishReason | None = None

    def feed(self, piece: Piece) -> TextDelta | None:
        """Add a piece. Returns what it adds to the answer; None if that is nothing.

        What follows an end token or a stop string is left out.

        Raises:
            ValueError: Tokens that the model does not have, or not one value for each token.
        """
        self._check(piece)
        self._counters.update(piece.counters)
        self._context_tokens.update(piece.context_tokens)
        if self.reason is not None:
            return None
        pieces, text = [], ""
        for number, token in enumerate(piece.tokens, 1):
            added, released = self._append(token, piece.reason if number == len(piece.tokens) else None)
            pieces.append(added)
            text += released
            if self.reason is not None:
                break
        if self.reason is None and piece.reason is not None:  # the server says so behind the last token
            self.reason = piece.reason
            text += self._text.flush().released
        if not pieces and not text:
            return None
        taken = len(pieces)
        if self.num_tokens > len(self._request.answer_prefix):
            self._first_token = self._first_token or time.perf_counter()
        return TextDelta(
            text,
            tuple(piece.tokens[:taken]),
            tuple(pieces),
            logprobs=tuple(self._asked(entry) for entry in piece.logprobs[:taken]),
            traces=tuple(piece.traces[:taken]),
            cut=self._text.cut,
        )

    def _check(self, piece: Piece) -> None:
        unknown = next((token for token in piece.tokens if token >= self._num_ids), None)
        if unknown is not None:
            raise ValueError(f"the token id {unknown}, where the tokenizer's are below {self._num_ids}")
        given = self.num_tokens < len(self._request.answer_prefix)  # what was not drawn has neither
        for name, asked, values in (
            ("logprobs", self._request.top_logprobs is not None, piece.logprobs),
            ("trace", self._request.trace, piece.traces),
        ):
            if asked and not given and len(values) != len(piece.tokens):
                raise ValueError(f"{len(values)} {name} for {len(piece.tokens)} tokens")

    @property
    def stopped(self) -> bool:
        """Whether the text has reached a stop string."""
        return self._text.stopped

    def finished(self, reason: FinishReason) -> Finished:
        """The end of the answer.

        Args:
            reason: Why it has ended.
        """
        now, given = time.perf_counter(), len(self._request.answer_prefix)
        return Finished(
            reason=reason,
            prompt_tokens=len(self._request.prompt_ids) + given,
            context_tokens=self._context_tokens,
            completion_tokens=self.num_tokens - given,
            time_to_first_token=(self._first_token or now) - self._submitted,
            seconds=now - self._submitted,
            unreported=COUNTERS - self._counters.keys(),
            **{name: self._counters.get(name, 0) for name in COUNTERS},
        )

    def _asked(self, entry: TokenLogprobs) -> TokenLogprobs:
        """Log-probabilities of as many alternatives as the request asks for."""
        return TokenLogprobs(entry.logprob, entry.top[: self._request.top_logprobs])

    def _append(self, token: int, reason: FinishReason | None) -> tuple[str, str]:
        """Append a token. Returns its text, and the text that can be shown now.

        Args:
            token: Its id.
            reason: Why the server ends the answer with it; None if it does not.
        """
        self.num_tokens += 1
        at_end = token in self._end_ids
        piece, released = self._text.feed(token, ends=at_end)
        if at_end or self._text.stopped:
            self.reason = "stop"
        elif self.num_tokens == self._request.max_tokens:
            self.reason = "length"
        else:
            self.reason = reason
        if self.reason is None:
            return piece, released
        rest = self._text.flush()
        self.reason = "stop" if self._text.stopped else self.reason
        return piece + rest.piece, released + rest.released
