"""The text of an answer, token by token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from langchain_eft.engine.decoding.detokenizer import Detokenizer, StopMatcher


class NewText(NamedTuple):
    """What a token adds.

    Attributes:
        piece: Its own text, stop strings included.
        released: The text that can be shown now.
    """

    piece: str
    released: str


class AnswerText:
    """Makes text of an answer's tokens: whole characters only, and nothing from a stop string on.

    Args:
        tokenizer: A transformers tokenizer.
        visible: Special tokens that are part of the text.
        stops: Strings that end the answer.
    """

    def __init__(self, tokenizer: Any, visible: Collection[int], stops: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer, visible)
        self._stops = StopMatcher(stops)

    @property
    def stopped(self) -> bool:
        """Whether the text has reached a stop string."""
        return self._stops.stopped

    @property
    def cut(self) -> int:
        """Characters that the stop string removes from the end of all pieces."""
        return self._stops.cut

    def feed(self, token: int, *, ends: bool) -> NewText:
        """Add a token.

        Args:
            token: Its id.
            ends: Whether it is an end token, which has no text.
        """
        piece = "" if ends else self._detokenizer.feed([token])
        return NewText(piece, self._stops.feed(piece))

    def flush(self) -> NewText:
        """What was held back, once no token can follow; nothing behind a stop string."""
        if self.stopped:
            return NewText("", "")
        rest = self._detokenizer.flush()
        return NewText(rest, self._stops.feed(rest) + self._stops.flush())
