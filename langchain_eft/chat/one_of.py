"""`oneOf` as `anyOf`, which the grammar compiler enforces, where no value holds in two alternatives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from itertools import combinations
from typing import Any

from langchain_eft.chat.subschemas import Schema, each, places, resolved

_TYPES = frozenset({"object", "array", "string", "number", "boolean", "null"})
_NOTHING: Schema = {"enum": []}


def exclusive_as_any(schema: Mapping[str, Any]) -> Schema:
    """A copy with `anyOf` for every `oneOf` whose alternatives exclude each other."""

    def change(part: Schema) -> Schema:
        choices = part.get("oneOf")
        if not isinstance(choices, list) or "anyOf" in part:
            return part
        pairs = combinations(map(partial(_target, root=tagged), choices), 2)
        if not all(_disjoint(one, other, tagged) for one, other in pairs):
            return part
        # The compiler takes a discriminator for one more condition, and recursive references allow none.
        part.pop("discriminator", None)
        return {"anyOf" if key == "oneOf" else key: value for key, value in part.items()}

    tagged = _tagged(schema)
    return each(tagged, change)


def _tagged(schema: Mapping[str, Any]) -> Schema:
    """A copy in which the alternatives of a discriminated union require its tag, as pydantic does."""
    copied = each(schema, lambda part: part)
    for _, part in list(places(copied)):
        discriminator, choices = part.get("discriminator"), part.get("oneOf")
        if isinstance(discriminator, Mapping) and isinstance(choices, list):
            for choice in choices:
                target, tag = _target(choice, copied), discriminator.get("propertyName")
                if tag in target.get("properties", {}):
                    target["required"] = [*dict.fromkeys([*target.get("required", []), tag])]
    return copied


def _target(part: Any, root: Schema) -> Schema:
    """The schema, or the one that it refers to."""
    for _ in range(8):  # a reference may lead to a reference
        if not isinstance(part, dict) or not isinstance(part.get("$ref"), str):
            break
        part = resolved(part["$ref"], root)
    return part if isinstance(part, dict) else {} if part is not False else _NOTHING


def _disjoint(one: Schema, other: Schema, root: Schema) -> bool:
    """Whether it is certain that no value holds in both schemas."""
    if not _types(one) & _types(other):
        return True
    values, other_values = _values(one), _values(other)
    if frozenset() in (values, other_values):
        return True
    if values is not None and other_values is not None and not values & other_values:
        return True
    if _types(one) != {"object"} or _types(other) != {"object"}:
        return False
    required = {*one.get("required", ()), *other.get("required", ())}
    return any(_disjoint(_property(one, key, root), _property(other, key, root), root) for key in required)


def _types(schema: Schema) -> frozenset[str]:
    stated = schema.get("type", _TYPES)
    types = {stated} if isinstance(stated, str) else set(stated)
    return frozenset("number" if kind == "integer" else kind for kind in types)


def _values(schema: Schema) -> frozenset[str] | None:
    """The values that a schema lists, as JSON; None where it lists none."""
    if "const" in schema:
        return frozenset({json.dumps(schema["const"], sort_keys=True)})
    if isinstance(schema.get("enum"), list):
        return frozenset(json.dumps(value, sort_keys=True) for value in schema["enum"])
    return None


def _property(schema: Schema, key: str, root: Schema) -> Schema:
    """The schema of a property; nothing holds in it where the property is forbidden."""
    properties = schema.get("properties", {})
    if key in properties:
        return _target(properties[key], root)
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return _NOTHING if closed and not {"$ref", "allOf"} & set(schema) else {}
