"""Patterns of text that stand for many texts: `{a|b}` is one of the alternatives."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping

_CHOICE = re.compile(r"\{([^{}]*)\}")
_PIECE = re.compile(r"(\{[^{}]*\})")


def draw(r: random.Random, pattern: str, fields: Mapping[str, str]) -> str:
    """Return one of the texts that a pattern stands for.

    Args:
        r: Draws the alternatives.
        pattern: A text with alternatives, which may hold alternatives themselves.
        fields: The alternatives that a name in braces stands for.
    """
    while match := _CHOICE.search(pattern):
        chosen = r.choice(_alternatives(match[1], fields))
        pattern = pattern[: match.start()] + chosen + pattern[match.end() :]
    return pattern


def expand(pattern: str, fields: Mapping[str, str]) -> Iterator[str]:
    """Yield every text that a pattern stands for, some perhaps twice.

    Args:
        pattern: A text with alternatives, which may hold alternatives themselves.
        fields: The alternatives that a name in braces stands for.
    """
    pieces = _PIECE.split(pattern)
    if len(pieces) == 1:
        yield pattern
        return
    choices = [_alternatives(p[1:-1], fields) if _CHOICE.fullmatch(p) else [p] for p in pieces]
    for chosen in itertools.product(*choices):
        yield from expand("".join(chosen), fields)


def _alternatives(inner: str, fields: Mapping[str, str]) -> list[str]:
    return fields.get(inner, inner).split("|")
