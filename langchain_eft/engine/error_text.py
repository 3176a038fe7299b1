"""Text for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from heapq import nsmallest
from itertools import islice
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

_LONGEST = 200
"""Characters of a value or name."""

_LONGEST_MESSAGE = 4000
"""Characters of a message. Some quote what was sent, and that has no end."""

_MOST_NAMES = 100
"""Names that are listed."""

_MOST_FAULTS = 5
"""Faults of one value that are described."""

_MOST_UNKNOWN, _LONGEST_UNKNOWN = 5, 64
"""Unknown names for which similar ones are looked for, and their characters."""


def shortened(text: str) -> str:
    """A text, shortened to 200 characters."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def shortened_message(message: str) -> str:
    """A message that was sent, shortened to 4000 characters in its middle: its end has the remedy."""
    half = _LONGEST_MESSAGE // 2
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:half]} ... {message[-half:]}"


def shown(value: object) -> str:
    """A value as it is written in Python, shortened to 200 characters."""
    try:
        text = repr(str(value) if isinstance(value, PurePath) else value)
    except ValueError:  # an integer of more than 4300 digits
        text = f"<{type(value).__name__}>"
    return shortened(text)


def quoted_names(names: Iterable[str]) -> str:
    """The names sorted, quoted and separated by commas, or "none" if there are no names; at most 100."""
    names = list(names)
    listed = ", ".join(map(shown, nsmallest(_MOST_NAMES, names)))
    return f"{listed} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else listed or "none"


def did_you_mean(unknown: Iterable[str], names: Collection[str]) -> str:
    """A question that ends a sentence, such as " Did you mean 'pirate'?"; empty if no name is similar."""
    few = [name for name in nsmallest(_MOST_UNKNOWN, unknown) if len(name) <= _LONGEST_UNKNOWN]
    similar = {match for name in few for match in difflib.get_close_matches(name, names, 1)}
    return f" Did you mean {quoted_names(similar)}?" if similar else ""


def describe(error: ValidationError, *, secret: bool = False) -> str:
    """A pydantic error in words: name, value and allowed values of the first few parameters.

    Args:
        error: The error.
        secret: Whether a value may be a secret: then none is shown.
    """
    return describe_parts(error.errors(include_url=False, include_input=not secret))


def describe_parts(parts: Iterable[Mapping[str, Any]]) -> str:
    """The first few parts of a pydantic error in words.

    Args:
        parts: What pydantic says about single values.
    """
    return "; ".join(dict.fromkeys(_describe(part) for part in islice(parts, _MOST_FAULTS)))


def place_of(part: Mapping[str, Any]) -> str:
    """Where the value is that a part of a pydantic error is about, step by step."""
    return shortened(".".join(map(str, part["loc"])))


def _describe(part: Mapping[str, Any]) -> str:
    where = place_of(part)
    message: str = part["msg"].removeprefix("Value error, ")
    value = f"={shown(part['input'])}" if "input" in part else ""
    return f"{where}{value}: {message}" if where else message
