"""`oneOf` as `anyOf`, which the grammar compiler enforces, where no value holds in two alternatives."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

from langchain_eft.chat.subschemas import Schema, each, places
from langchain_eft.engine.decoding.schema_limits import resolved

_TYPES = frozenset({"object", "array", "string", "number", "boolean", "null"})
_NOTHING: Schema = {"enum": []}

_COMPARED_DEPTH = 8
"""Properties inside one another that are compared."""


def exclusive_as_any(schema: Mapping[str, Any]) -> Schema:
    """A copy with `anyOf` for every `oneOf` whose alternatives exclude each other, as far as is seen."""
    tagged = _tagged(schema)
    comparison = _Comparison(tagged)

    def change(part: Schema) -> Schema:
        choices = part.get("oneOf")
        if not isinstance(choices, list) or "anyOf" in part or not comparison.exclusive(choices):
            return part
        # The compiler takes a discriminator for one more condition, and recursive references allow none.
        part.pop("discriminator", None)
        return {"anyOf" if key == "oneOf" else key: value for key, value in part.items()}

    return each(tagged, change)


def _tagged(schema: Mapping[str, Any]) -> Schema:
    """A copy in which the alternatives of a discriminated union require its tag, as pydantic does."""
    copied = each(schema, lambda part: part)
    for _, part in list(places(copied)):
        discriminator, choices = part.get("discriminator"), part.get("oneOf")
        if isinstance(discriminator, Mapping) and isinstance(choices, list):
            for choice in choices:
                target, tag = _target(choice, copied), discriminator.get("propertyName")
                if isinstance(tag, str) and tag in _properties(target) and tag not in _required(target):
                    target["required"] = [*_required(target), tag]
    return copied


def _target(part: Any, root: Schema) -> Schema:
    """The schema, or the one that it refers to."""
    for _ in range(8):  # a reference may lead to a reference
        if not isinstance(part, dict) or not isinstance(part.get("$ref"), str):
            break
        part = resolved(part["$ref"], root)
    return part if isinstance(part, dict) else {} if part is not False else _NOTHING


class _Comparison:
    """Compares the schemas in a schema, at most so many of them that it takes no longer than a second.

    Args:
        root: The schema.
    """

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = 50_000

    def exclusive(self, choices: Sequence[Any]) -> bool:
        """Whether it is certain that no value holds in two of the schemas."""
        targets = [_target(choice, self._root) for choice in choices]
        return self._told_apart(targets) or all(
            self._disjoint(one, other, depth=0) for one, other in combinations(targets, 2)
        )

    def _told_apart(self, schemas: Sequence[Schema]) -> bool:
        """Whether the schemas, or one property that all objects require, list different constants."""
        if _list_different(schemas):
            return True
        if not schemas or any(_types(schema) != {"object"} for schema in schemas):
            return False
        for key in set.intersection(*(set(_required(schema)) for schema in schemas)):
            self._left -= len(schemas)
            if self._left > 0 and _list_different([_property(each, key, self._root) for each in schemas]):
                return True
        return False

    def _disjoint(self, one: Schema, other: Schema, depth: int) -> bool:
        """Whether it is certain that no value holds in both schemas."""
        self._left -= 1
        if self._left < 0:
            return False
        if not _types(one) & _types(other):
            return True
        values, other_values = _values(one), _values(other)
        if frozenset() in (values, other_values):
            return True
        if values is not None and other_values is not None and not values & other_values:
            return True
        if _types(one) != {"object"} or _types(other) != {"object"} or depth == _COMPARED_DEPTH:
            return False
        return any(
            self._disjoint(_property(one, key, self._root), _property(other, key, self._root), depth + 1)
            for key in {*_required(one), *_required(other)}
        )


def _types(schema: Schema) -> frozenset[str]:
    stated = schema.get("type", _TYPES)
    types = [stated] if isinstance(stated, str) else stated if isinstance(stated, Collection) else ()
    return frozenset("number" if kind == "integer" else str(kind) for kind in types)


def _properties(schema: Schema) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _required(schema: Schema) -> list[str]:
    required = schema.get("required")
    return [key for key in required if isinstance(key, str)] if isinstance(required, list) else []


def _list_different(schemas: Sequence[Schema]) -> bool:
    """Whether each of the schemas lists its values, and no value stands in two of them."""
    listed = [_values(schema) for schema in schemas]
    values = [value for values in listed for value in values or ()]
    return None not in listed and len(set(values)) == len(values)


def _values(schema: Schema) -> frozenset[str] | None:
    """The values that a schema lists, as JSON; None where it lists none."""
    if "const" in schema:
        return frozenset({json.dumps(schema["const"], sort_keys=True)})
    if isinstance(schema.get("enum"), list):
        return frozenset(json.dumps(value, sort_keys=True) for value in schema["enum"])
    return None


def _property(schema: Schema, key: str, root: Schema) -> Schema:
    """The schema of a property; nothing holds in it where the property is forbidden."""
    properties = _properties(schema)
    if key in properties:
        return _target(properties[key], root)
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return _NOTHING if closed and not {"$ref", "allOf"} & set(schema) else {}
