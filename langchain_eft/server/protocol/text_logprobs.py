"""Log-probabilities of completions, in OpenAI's older form: a list for each kind of value."""

from __future__ import annotations

from typing import Any

from langchain_eft.engine.decoding.answer_text import token_bytes
from langchain_eft.engine.events import TextDelta, TokenLogprobs


class TextLogprobs:
    """Writes the log-probabilities of one answer.

    Args:
        tokenizer: Decodes single tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._offset = 0

    def write(self, event: TextDelta) -> dict[str, Any] | None:
        """Those of a round's tokens; None if there are none, as for an answer's prefix.

        `top_token_ids` is not OpenAI's: the ids and log-probabilities of `top_logprobs`, because several
        tokens may have one text.
        """
        offsets = []
        for piece in event.pieces:
            offsets.append(self._offset)
            self._offset += len(piece)
        if not event.logprobs:
            return None
        return {
            "tokens": [self._text(token) for token in event.tokens],
            "token_logprobs": [entry.logprob for entry in event.logprobs],
            "top_logprobs": [self._top(entry) for entry in event.logprobs],
            "text_offset": offsets,
            "top_token_ids": [list(entry.top) for entry in event.logprobs],
        }

    def _top(self, entry: TokenLogprobs) -> dict[str, float]:
        top: dict[str, float] = {}
        for token, logprob in entry.top:
            top.setdefault(self._text(token), logprob)
        return top

    def _text(self, token: int) -> str:
        """A token's text; for a part of a character, its bytes in hexadecimal."""
        text: str = self._tokenizer.decode([token])
        if "\ufffd" not in text:
            return text
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token_bytes(self._tokenizer, token))
