"""Prompt lookup: draft tokens that followed the last few tokens earlier in the same text."""

from __future__ import annotations

from collections.abc import Sequence

_NGRAM = 3


class PromptLookup:
    """An index of the n-grams of one growing text (prompt lookup decoding, Saxena 2023)."""

    def __init__(self) -> None:
        self._follows: dict[tuple[int, ...], int] = {}
        self._indexed = _NGRAM

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """Up to `count` tokens that followed the latest earlier occurrence of the last n-gram.

        Args:
            tokens: The whole text so far; grows from call to call.
            count: Most tokens to propose.
        """
        # The last n-gram is indexed only once a token follows it.
        for end in range(self._indexed, len(tokens)):
            self._follows[tuple(tokens[end - _NGRAM : end])] = end
        self._indexed = max(self._indexed, len(tokens))
        start = self._follows.get(tuple(tokens[-_NGRAM:]))
        return [] if start is None else list(tokens[start : start + count])
