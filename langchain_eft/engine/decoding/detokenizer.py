"""Token ids to text as they arrive: whole characters only, stop strings found wherever they are cut."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

_REPLACEMENT = "\ufffd"


def token_bytes(tokenizer: Any, token_id: int) -> bytes:
    """UTF-8 bytes of one token, which need not be whole characters."""
    text: str = tokenizer.decode([token_id])
    if _REPLACEMENT not in text:
        return text.encode()
    piece: str = tokenizer.convert_ids_to_tokens(token_id)
    if byte := re.fullmatch("<0x([0-9A-F]{2})>", piece):  # as sentencepiece writes them
        return bytes.fromhex(byte[1])
    alphabet = _byte_alphabet()
    return bytes(alphabet[char] for char in piece) if set(piece) <= set(alphabet) else text.encode()


@cache
def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write bytes as."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode  # slow to import, seldom needed

    return {char: byte for byte, char in bytes_to_unicode().items()}


class Detokenizer:
    """Turns a growing list of token ids into text deltas that join to the text of the whole.

    A character whose bytes are spread over several tokens is held back until it is complete.

    Args:
        tokenizer: A transformers tokenizer.
        visible: Special tokens that are part of the text; the others are left out.
    """

    def __init__(self, tokenizer: Any, visible: Collection[int] = ()) -> None:
        self._tokenizer = tokenizer
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._hidden = special.difference(visible)
        # The tokens of the last delta, then those not shown yet: a token is decoded beside its predecessors,
        # since some tokenizers strip the first space of a text.
        self._window: list[int] = []
        self._read = 0
        self._shown = ""

    def feed(self, token_ids: Sequence[int]) -> str:
        """Add tokens; returns the text that they complete."""
        self._window.extend(token_ids)
        text = self._decode(self._window)
        delta = text[len(self._shown) :]
        if not delta or text.endswith(_REPLACEMENT):
            return ""
        self._window = self._window[self._read :]
        self._read = len(self._window)
        self._shown = self._decode(self._window)
        return delta

    def flush(self) -> str:
        """The complete characters still held at the end; the bytes of an unfinished one are dropped."""
        text = self._decode(self._window).rstrip(_REPLACEMENT)
        delta, self._shown = text[len(self._shown) :], text
        return delta

    def _decode(self, token_ids: list[int]) -> str:
        shown = [i for i in token_ids if i not in self._hidden]
        text: str = self._tokenizer.decode(
            shown, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


class StopMatcher:
    """Cuts a stream of text before the first stop string, however the string is spread over deltas.

    Attributes:
        stopped: Whether a stop string was found.
        cut: Characters that were taken away, from the stop string on.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False
        self.cut = 0

    def feed(self, text: str) -> str:
        """Add text; returns what can be shown: nothing that may still become a stop string."""
        self._held += text
        ends = [index for stop in self._stops if (index := self._held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            shown, self.cut, self._held = self._held[: min(ends)], len(self._held) - min(ends), ""
            return shown
        keep = self._partial_match()
        shown, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return shown

    def flush(self) -> str:
        """The text held back, once nothing more can follow."""
        held, self._held = self._held, ""
        return held

    def _partial_match(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stops):
                return size
        return 0
