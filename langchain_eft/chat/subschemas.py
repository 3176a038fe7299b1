"""The schemas inside a JSON schema: their places, changes of them, and references between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from langchain_eft.engine.decoding.schema_limits import NAMED_SCHEMAS, resolved

Schema = dict[str, Any]

Place = tuple[tuple[str, str | int | None], ...]
"""The way to a schema inside another one: keywords, each with the name or number of one of its schemas."""

_ONE_SCHEMA = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_MANY_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")


def each(
    schema: Mapping[str, Any], change: Callable[[Schema], Schema], leave: tuple[str, ...] = ()
) -> Schema:
    """A copy with a change made to the schema and to all schemas in it, inner ones first.

    Args:
        schema: A JSON schema.
        change: Changes a copied schema; returns what replaces it.
        leave: Keywords whose values stay as they are.
    """

    def inner(value: Any) -> Any:
        return each(value, change, leave) if isinstance(value, Mapping) else value

    copied: Schema = {}
    for key, value in schema.items():
        if key in leave:
            copied[key] = value
        elif key in NAMED_SCHEMAS and isinstance(value, Mapping):
            copied[key] = {name: inner(part) for name, part in value.items()}
        elif key in _MANY_SCHEMAS and isinstance(value, list):
            copied[key] = [inner(part) for part in value]
        else:
            copied[key] = inner(value) if key in _ONE_SCHEMA else value
    return change(copied)


def places(schema: Mapping[str, Any], place: Place = ()) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """The place of the schema and of all schemas in it, each with its schema, inner ones first."""
    for key, value in schema.items():
        inner: list[tuple[str | int | None, Any]] = []
        if key in NAMED_SCHEMAS and isinstance(value, Mapping):
            inner = list(value.items())
        elif key in _MANY_SCHEMAS and isinstance(value, list):
            inner = list(enumerate(value))
        elif key in _ONE_SCHEMA:
            inner = [(None, value)]
        for name, part in inner:
            if isinstance(part, Mapping):
                yield from places(part, (*place, (key, name)))
    yield place, schema


def field_name(place: Place) -> str:
    """The names of the fields that lead to a place; empty for the schema itself."""
    return ".".join(str(name) for key, name in place if key in NAMED_SCHEMAS)


def is_recursive(schema: Mapping[str, Any]) -> bool:
    """Whether some definition of a schema refers to itself, perhaps through others."""
    references: dict[str, set[str]] = {}
    found = ["#"]
    while found:
        name = found.pop()
        if name not in references:
            references[name] = set(_references(resolved(name, schema)))
            found += references[name]
    try:
        TopologicalSorter(references).prepare()
    except CycleError:
        return True
    return False


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for key, value in part.items():
            if key not in ("$defs", "definitions"):  # followed from where they are referred to
                yield from _references(value)
    elif isinstance(part, list):
        yield from (reference for value in part for reference in _references(value))
