"""Texts as a tree of tokens: what they have in common at their beginning is there once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """Tokens that follow one another, in a text that was added when nobody had them yet."""

    tokens: tuple[int, ...]
    position: int  # position of the first one in its text
    # numbers, in the tree, of all tokens of the text up to the end of this run, as ranges
    path: tuple[range, ...]
    depth: int  # runs that come before this one in the text


class PrefixTree:
    """A tree of tokens. A token's number is its place in the order in which tokens were added.

    Attributes:
        runs: All tokens. A run comes after those that its text begins with.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self._children: dict[tuple[int, int], int] = {}
        self._run_of: list[int] = []

    def __len__(self) -> int:
        return len(self._run_of)

    def add(self, tokens: Sequence[int], after: int = -1) -> list[int]:
        """Add a text, or what follows a token that is in the tree.

        Args:
            tokens: Token ids.
            after: Number of the token before them; -1 begins a text.

        Returns:
            The number of each token.
        """
        numbers: list[int] = []
        last = after
        for token in tokens:
            number = self._children.get((last, token))
            if number is None:
                break
            numbers.append(number)
            last = number
        rest = tuple(tokens[len(numbers) :])
        if rest:
            numbers.extend(self._append(rest, last))
        return numbers

    def _append(self, tokens: tuple[int, ...], last: int) -> range:
        new = range(len(self), len(self) + len(tokens))
        before = self._ranges(last)
        depth = self.runs[self._run_of[last]].depth + 1 if before else 0
        self._run_of.extend([len(self.runs)] * len(tokens))
        self.runs.append(Run(tokens, sum(map(len, before)), (*before, new), depth))
        for number, token in zip(new, tokens, strict=True):
            self._children[last, token] = number
            last = number
        return new

    def _ranges(self, number: int) -> tuple[range, ...]:
        if number < 0:
            return ()
        *before, own = self.runs[self._run_of[number]].path
        return (*before, range(own.start, number + 1))
