"""What a JSON schema takes to compile, read before the compiler sees it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any
from urllib.parse import unquote

from langchain_eft.engine.decoding.grammar_limits import (
    MAX_KEY_PATTERNS,
    MAX_MEMBERS,
    MAX_NESTING,
    MIN_PATTERN_LENGTH,
    Definition,
    pattern_length,
    refuse_combinations,
    refuse_deep,
    refuse_large,
    resolve,
)
from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.nesting import levels

NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value has a schema for each name."""

_DATA = ("const", "enum", "default", "examples", "example", "required", "x-guidance")
_DEFINITIONS = ("$defs", "definitions")
_COMBINED = ("allOf", "anyOf", "oneOf")
_BASES = ("$id", "$schema", "$anchor", "$dynamicAnchor", "$recursiveAnchor")

_LEVELS = 2
"""Levels of a schema inside a schema: it takes up to 5.5 kB of native stack."""

_FORMAT_LENGTH = 300
"""About the length of the patterns that formats stand for."""

Schema = Mapping[str, Any]


def check_schema(schema: Schema) -> Definition:
    """Refuse a schema that the compiler could not compile safely; else, what it takes.

    Raises:
        RequestError: With what is too long, too deep or too wide, or with a reference that leads nowhere.
    """
    refuse_nesting(schema)
    refuse_large(len(json.dumps(schema, ensure_ascii=False).encode("utf-8", "replace")))
    parts = list(_parts(schema))
    _refuse_wide(parts)
    targets = {"#": schema}
    if any(isinstance(part.get("$ref"), str) for part in parts):
        _refuse_bases(schema, parts)
        for part in parts:
            if isinstance(reference := part.get("$ref"), str) and reference not in targets:
                targets[reference] = _required(reference, schema)
    known: dict[int, Definition] = {}
    whole = resolve({name: _definition(part, known) for name, part in targets.items()})["#"]
    refuse_deep(whole.levels)
    combinations: dict[int, float] = {}
    refuse_combinations(max(_combinations(part, targets, combinations) for part in parts))
    return whole


def refuse_nesting(value: Any) -> None:
    """Refuse lists and objects that are too deep inside one another, without recursion.

    Raises:
        RequestError: With the limit.
    """
    for depth, level in enumerate(levels(value)):
        refuse_large(2 * len(level))  # two brackets each
        if depth > MAX_NESTING:
            raise RequestError(
                f"It has lists and objects more than {MAX_NESTING} deep inside one another: give parts of it "
                "names in `$defs`, and refer to them."
            )


def resolved(reference: str, schema: Schema) -> Any:
    """What a reference inside a schema, such as `#/$defs/name`, points to; None where it leads nowhere."""
    if reference in ("#", "#/"):
        return schema
    part: Any = schema if reference.startswith("#/") else None
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, Mapping):
            part = part.get(name)
        else:
            part = part[int(name)] if isinstance(part, list) and name in map(str, range(len(part))) else None
    return part


def _children(schema: Schema) -> Iterator[Schema]:
    """The schemas directly inside a schema, and whatever may be one, but not its definitions."""
    for key, value in schema.items():
        if key in NAMED_SCHEMAS and isinstance(value, Mapping):
            if key not in _DEFINITIONS:
                yield from (each for each in value.values() if isinstance(each, Mapping))
        elif isinstance(value, Mapping) and key not in _DATA:
            yield value
        elif isinstance(value, list) and key not in _DATA:
            yield from (each for each in value if isinstance(each, Mapping))


def _parts(schema: Schema) -> Iterator[Schema]:
    """The schema and all schemas in it."""
    yield schema
    for child in _children(schema):
        yield from _parts(child)
    for key in _DEFINITIONS:
        if isinstance(schema.get(key), Mapping):
            for each in schema[key].values():
                if isinstance(each, Mapping):
                    yield from _parts(each)


def _required(reference: str, schema: Schema) -> Schema:
    found = resolved(reference, schema)
    if isinstance(found, bool):
        return {}
    if not isinstance(found, Mapping):
        raise RequestError(
            f"$ref={shown(reference)} leads nowhere: refer to a part of the schema, as in '#/$defs/name'."
        )
    return found


def _refuse_bases(schema: Schema, parts: list[Schema]) -> None:
    """Refuse keywords by which a reference would lead elsewhere than its text says."""
    names = (*_BASES, "id") if "$schema" in schema else _BASES
    for part in parts:
        for key in names:
            if part is not schema and isinstance(part.get(key), str):
                raise RequestError(
                    f"{key}={shown(part[key])} inside a schema with references cannot be followed: leave it "
                    "out, and refer to parts as in '#/$defs/name'."
                )


def _refuse_wide(parts: list[Schema]) -> None:
    for part in parts:
        for key in ("properties", "anyOf", "oneOf", "allOf", "prefixItems"):
            count = len(part[key]) if isinstance(part.get(key), Mapping | list) else 0
            if count > MAX_MEMBERS:
                raise RequestError(
                    f"`{key}` has {count} members, and {MAX_MEMBERS} are allowed: give a smaller one."
                )
    patterns = sum(len(_key_patterns(part)) for part in parts)
    if patterns > MAX_KEY_PATTERNS:
        raise RequestError(
            f"`patternProperties` has {patterns} patterns, and {MAX_KEY_PATTERNS} are allowed: give fewer."
        )


def _patterns(schema: Schema) -> list[str]:
    return [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []


def _key_patterns(schema: Schema) -> list[str]:
    patterns = schema.get("patternProperties")
    return list(patterns) if isinstance(patterns, Mapping) else []


def _listed(schema: Schema, key: str) -> list[Schema]:
    value = schema.get(key)
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _definition(schema: Schema, known: dict[int, Definition]) -> Definition:
    """What a part of a schema takes, without its own definitions."""
    if id(schema) in known:
        return known[id(schema)]
    inner = [_definition(child, known) for child in _children(schema)]
    least = [schema.get(key) for key in ("minItems", "minLength")]
    times = max([1.0, *(float(n) for n in least if isinstance(n, int | float) and abs(n) < 2**63)])
    names: Counter[str] = Counter()
    for each in inner:
        names.update(each.references)
    if isinstance(schema.get("$ref"), str):
        names[schema["$ref"]] += 1
    texts = [schema[key] for key in ("const", "enum") if key in schema]
    if isinstance(schema.get("properties"), Mapping):
        texts += schema["properties"]
    length = len(json.dumps(texts)) + sum(map(pattern_length, [*_patterns(schema), *_key_patterns(schema)]))
    length += sum(each.length for each in inner)
    known[id(schema)] = Definition(
        _LEVELS + max((each.levels for each in inner), default=0),
        length * times,
        references=Counter({name: int(count * min(times, 1e12)) for name, count in names.items()}),
    )
    return known[id(schema)]


def _combinations(schema: Schema, targets: Mapping[str, Schema], known: dict[int, float]) -> float:
    """The product of the lengths of the patterns that hold for one text at once, where it is largest."""
    if id(schema) in known:
        return known[id(schema)]
    known[id(schema)] = 1.0  # what a circle leads back to has been counted
    most = prod(len(pattern) + MIN_PATTERN_LENGTH for pattern in _patterns(schema)) * 1.0
    most *= _FORMAT_LENGTH if "format" in schema else 1
    keys = sum(len(pattern) + MIN_PATTERN_LENGTH for pattern in _key_patterns(schema))
    most, combined = max(most, keys * keys), {id(each) for key in _COMBINED for each in _listed(schema, key)}
    for child in _children(schema):
        if id(child) not in combined:
            most = max(most, _combinations(child, targets, known))
    for key in _COMBINED:
        factors = [_combinations(each, targets, known) for each in _listed(schema, key)]
        most *= prod(factors) if key == "allOf" else max(factors, default=1)
    if isinstance(schema.get("$ref"), str):
        most *= _combinations(targets[schema["$ref"]], targets, known)
    known[id(schema)] = most
    return most
