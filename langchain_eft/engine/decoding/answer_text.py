"""The text of an answer, token by token: whole characters only, and nothing from a stop string on."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

_REPLACEMENT = "\ufffd"

_LONGEST_CHARACTER = 4
"""Bytes of UTF-8, and so tokens, that one character may need."""

_MOST_HELD = 2 * _LONGEST_CHARACTER
"""Tokens that are held back. Among more of them is one that no further token makes part of a character."""


def token_bytes(tokenizer: Any, token_id: int) -> bytes:
    """UTF-8 bytes of one token. They may be a part of a character."""
    text: str = tokenizer.decode([token_id])
    if _REPLACEMENT not in text:
        return text.encode()
    piece: str = tokenizer.convert_ids_to_tokens(token_id)
    if byte := re.fullmatch("<0x([0-9A-F]{2})>", piece):  # sentencepiece's spelling of a byte
        return bytes.fromhex(byte[1])
    alphabet = _byte_alphabet()
    return bytes(alphabet[char] for char in piece) if set(piece) <= set(alphabet) else text.encode()


@cache
def _byte_alphabet() -> dict[str, int]:
    """The byte that each character stands for in the vocabulary of a byte-level tokenizer."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode  # slow to import, seldom needed

    return {char: byte for byte, char in bytes_to_unicode().items()}


class Detokenizer:
    """Turns a growing list of token ids into text deltas. Joined, they are the text of all tokens.

    A character may spread over several tokens. It is held back until it is complete.

    Args:
        tokenizer: A transformers tokenizer.
        visible: Special tokens that are part of the text; the others are left out.
    """

    def __init__(self, tokenizer: Any, visible: Collection[int] = ()) -> None:
        self._tokenizer = tokenizer
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._hidden = special.difference(visible)
        # The tokens of the last delta, then the tokens that have no text yet. New tokens are decoded together
        # with the tokens before them, for some tokenizers strip the first space of a text.
        self._window: list[int] = []
        self._num_emitted = 0
        self._emitted = ""

    def feed(self, token_ids: Sequence[int]) -> str:
        """Add tokens; returns the text that they complete."""
        self._window.extend(token for token in token_ids if token not in self._hidden)
        text = self._decode(self._window)
        if len(text) > len(self._emitted) and not text.endswith(_REPLACEMENT):
            return self._emit(len(self._window), text)
        if len(self._window) - self._num_emitted > _MOST_HELD:
            return self._give_up(text)
        return ""

    def flush(self) -> str:
        """The complete characters that are still held back; the bytes of an incomplete one are dropped."""
        text = self._decode(self._window).rstrip(_REPLACEMENT)
        delta, self._emitted = text[len(self._emitted) :], text
        return delta

    def _emit(self, end: int, text: str) -> str:
        """What `text`, that of the window's tokens before `end`, adds. Older tokens are dropped."""
        delta = text[len(self._emitted) :]
        self._window, self._num_emitted = self._window[self._num_emitted :], end - self._num_emitted
        self._emitted = self._decode(self._window[: self._num_emitted])
        return delta

    def _give_up(self, text: str) -> str:
        """Emit tokens that are no part of a character, up to a place where the text can be cut."""
        for end in range(len(self._window) - _LONGEST_CHARACTER, self._num_emitted, -1):
            before = self._decode(self._window[:end])
            if text == before + self._decode(self._window[end:]):
                return self._emit(end, before)
        return ""

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


class StopMatcher:
    """Cuts a stream of text before the first stop string, which may spread over several deltas.

    Attributes:
        stopped: Whether the text has reached a stop string.
        cut: Characters removed from the text, from the stop string on.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = sorted(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.stopped = False
        self.cut = 0

    def feed(self, text: str) -> str:
        """Add text; returns what can be shown. Text that may begin a stop string is held back."""
        if not self._stops:
            return text
        held = self._held + text
        starts = [index for stop in self._stops if (index := held.find(stop)) >= 0]
        if starts:
            self.stopped = True
            self.cut, self._held = len(held) - min(starts), ""
            return held[: min(starts)]
        end = len(held) - self._partial_match(held)
        self._held = held[end:]
        return held[:end]

    def flush(self) -> str:
        """The text held back, once nothing more can follow."""
        held, self._held = self._held, ""
        return held

    def _partial_match(self, text: str) -> int:
        """Length of the longest end of the text that begins a stop string."""
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-size:]
            place = bisect_left(self._stops, end)  # in order, a string is followed by those that it begins
            if place < len(self._stops) and self._stops[place].startswith(end):
                return size
        return 0


class NewText(NamedTuple):
    """What a token adds."""

    piece: str  # its own text, stop strings included
    released: str  # the text that can be shown now


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
        """Add a token; one that `ends` the answer has no text."""
        piece = "" if ends else self._detokenizer.feed([token])
        return NewText(piece, self._stops.feed(piece))

    def flush(self) -> NewText:
        """What was held back, once no token can follow; nothing behind a stop string."""
        if self.stopped:
            return NewText("", "")
        rest = self._detokenizer.flush()
        return NewText(rest, self._stops.feed(rest) + self._stops.flush())
