"""A whole answer from the pieces of its stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def join(pieces: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One dictionary of several: texts and lists are put together, null gives way to a value.

    Parts of lists that have an `index`, as tool calls do, are joined with the part of the same index.
    """
    joined: dict[str, Any] = {}
    for piece in pieces:
        for name, value in piece.items():
            joined[name] = _joined(joined.get(name), value)
    return joined


def _joined(old: Any, new: Any) -> Any:
    match old, new:
        case str(), str():
            return old + new
        case dict(), dict():
            return join([old, new])
        case list(), list() if any(isinstance(part, dict) and "index" in part for part in new):
            by_index = {part["index"]: part for part in old}
            for part in new:
                by_index[part["index"]] = join([by_index.get(part["index"], {}), part])
            return list(by_index.values())
        case list(), list():
            return [*old, *new]
    return old if new is None else new
