"""Text for error messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError


def shown(value: object) -> str:
    """A value as it is written in Python, shortened to 200 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4300 digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 200 else f"{text[:197]}..."


def quoted_names(names: Iterable[str]) -> str:
    """The names sorted, quoted and separated by commas, or "none" if there are no names."""
    return ", ".join(repr(name) for name in sorted(names)) or "none"


def describe(error: ValidationError, *, secret: bool = False) -> str:
    """A pydantic error in words: name, value and allowed values of each parameter.

    Args:
        error: The error.
        secret: Whether a value may be a secret: then none is shown.
    """
    parts = error.errors(include_url=False, include_input=not secret)
    return "; ".join(describe_part(part, part["loc"]) for part in parts)


def describe_part(part: Mapping[str, Any], location: Iterable[str | int]) -> str:
    """One part of a pydantic error in words.

    Args:
        part: What pydantic says about one value.
        location: Where the value is, step by step.
    """
    where = ".".join(map(str, location))
    message: str = part["msg"].removeprefix("Value error, ")
    value = f"={shown(part['input'])}" if "input" in part else ""
    return f"{where}{value}: {message}" if where else message
