"""A whole answer from the pieces of its stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any


def join(pieces: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One dictionary of several: texts and lists are put together, null gives way to a value.

    Parts of lists that have an `index`, as tool calls do, are joined with the part of the same index.
    """
    values: dict[str, list[Any]] = {}
    for piece in pieces:
        for name, value in piece.items():
            values.setdefault(name, []).append(value)
    return {name: _joined(each) for name, each in values.items()}


def _joined(values: list[Any]) -> Any:
    """The values of one name as one; each is looked at once, however many there are."""
    given = [value for value in values if value is not None] or [None]
    match given[-1]:
        case str():
            return "".join(given)
        case dict():
            return join(given)
        case list():
            return _listed(list(chain.from_iterable(given)))
    return given[-1]


def _listed(parts: list[Any]) -> list[Any]:
    if not any(isinstance(part, dict) and "index" in part for part in parts):
        return parts
    by_index: dict[int, list[Any]] = {}
    for part in parts:
        by_index.setdefault(part["index"], []).append(part)
    return [join(each) for each in by_index.values()]
