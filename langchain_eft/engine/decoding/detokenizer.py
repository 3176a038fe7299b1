"""From token ids to text as they arrive: whole characters only, and no stop string."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

_REPLACEMENT = "\ufffd"


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
        self._window.extend(token_ids)
        text = self._decode(self._window)
        delta = text[len(self._emitted) :]
        if not delta or text.endswith(_REPLACEMENT):
            return ""
        self._window = self._window[self._num_emitted :]
        self._num_emitted = len(self._window)
        self._emitted = self._decode(self._window)
        return delta

    def flush(self) -> str:
        """The complete characters that are still held back; the bytes of an incomplete one are dropped."""
        text = self._decode(self._window).rstrip(_REPLACEMENT)
        delta, self._emitted = text[len(self._emitted) :], text
        return delta

    def _decode(self, token_ids: list[int]) -> str:
        visible = [i for i in token_ids if i not in self._hidden]
        text: str = self._tokenizer.decode(
            visible, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


class StopMatcher:
    """Cuts a stream of text before the first stop string, which may spread over several deltas.

    Attributes:
        stopped: Whether the text has reached a stop string.
        cut: Characters removed from the text, from the stop string on.

    Args:
        stops: The stop strings.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
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
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
