"""Arrays and objects inside one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any


def levels(value: Any) -> Iterator[list[Any]]:
    """The arrays and objects of each level of a value, from the outermost, without recursion."""
    level = [value] if isinstance(value, Mapping | list) else []
    while level:
        yield level
        level = [inner for outer in level for inner in _inside(outer)]


def is_deeper(value: Any, most: int) -> bool:
    """Whether more arrays and objects than `most` are inside one another."""
    return next(islice(levels(value), most, None), None) is not None


def _inside(value: Mapping[str, Any] | list[Any]) -> Iterator[Any]:
    """The arrays and objects directly inside one."""
    parts = value.values() if isinstance(value, Mapping) else value
    return (part for part in parts if isinstance(part, Mapping | list))
