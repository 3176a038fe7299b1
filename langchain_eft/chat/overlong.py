"""Texts that are much too long for the context window are refused before all of their tokens are made."""

from __future__ import annotations

from typing import Any

from langchain_eft.engine.errors import ContextWindowError

_PIECE = 2**12
"""Characters that are tokenized at a time. Four times as many tokens may come of them."""


def refuse_overlong(tokenizer: Any, text: str, window: int | None) -> None:
    """Refuse a text of more than twice the tokens that the window holds, as soon as so many are found.

    A text that is cut into pieces has a few tokens more or less: which text just fits is not decided here.

    Args:
        tokenizer: A transformers tokenizer.
        text: What the models would read.
        window: Tokens that a prompt and its answer may have together; None refuses nothing.

    Raises:
        ContextWindowError: With the tokens that were found.
    """
    if window is None or len(text.encode(errors="replace")) <= max(_PIECE, 2 * window):
        return
    found = 0
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE]
        found += len(tokenizer(piece, add_special_tokens=False).input_ids)
        if found > 2 * window:
            raise ContextWindowError.of(found, 1, window, counted_all=False)
