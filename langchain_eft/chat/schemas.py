"""JSON schemas: from what callers give to what the grammar compiler accepts."""

from __future__ import annotations

import copy
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from langchain_core.utils.function_calling import convert_to_json_schema
from llguidance import LLMatcher
from pydantic import BaseModel

from langchain_eft.chat.tools import shortened
from langchain_eft.engine.errors import RequestError

logger = logging.getLogger(__name__)

_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # No \uXXXX: text comes out as characters, never as escapes.
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": True,
}
"""JSON as `json.dumps` and the templates' `tojson` write it. `lenient` ignores keywords without support."""

_LIMITS = (
    "pattern", "format", "patternProperties", "minProperties", "maxProperties", "minLength", "maxLength",
    "minItems", "maxItems", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
)  # fmt: skip
"""Keywords that can be dropped: the schema still describes the object."""

_ONE_SCHEMA = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_MANY_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")

_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}

Schema = dict[str, Any]


def schema_dict(schema: Any) -> Schema:
    """A pydantic class, a TypedDict, or a plain or wrapped schema dictionary as a plain JSON schema.

    Raises:
        RequestError: A value that does not describe JSON.
    """
    if isinstance(schema, Mapping):
        return _unwrapped(schema)
    try:
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            return schema.model_json_schema()
        if isinstance(schema, type) and hasattr(schema, "schema") and hasattr(schema, "__fields__"):
            converted: Schema = schema.schema()  # pydantic.v1
            return converted
        return convert_to_json_schema(schema)
    except Exception as error:  # pydantic and LangChain each raise their own
        raise RequestError(
            f"schema={shortened(schema)} cannot be read ({error}): give a pydantic class, a TypedDict or a "
            "JSON schema."
        ) from error


def schema_name(schema: Any) -> str:
    """The name of a schema; `answer` where it has none."""
    if isinstance(schema, Mapping):
        for key in ("json_schema", "function"):
            if isinstance(schema.get(key), Mapping):
                return schema_name(schema[key])
        name = schema.get("name") or schema.get("title") or "answer"
        return str(name)
    return str(getattr(schema, "__name__", None) or getattr(schema, "name", "answer"))


def _unwrapped(schema: Mapping[str, Any]) -> Schema:
    """The schema inside OpenAI's and Anthropic's wrappers."""
    if schema.get("type") == "json_schema" and isinstance(schema.get("json_schema"), Mapping):
        return _unwrapped(schema["json_schema"])
    if schema.get("type") == "function" and isinstance(schema.get("function"), Mapping):
        return _unwrapped({"parameters": {"type": "object", "properties": {}}, **schema["function"]})
    if "properties" not in schema:
        for key in ("schema", "parameters", "input_schema"):
            if isinstance(schema.get(key), Mapping):
                return dict(schema[key])
    described = {"properties", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"}
    types = schema.get("type", [])
    if not set([types] if isinstance(types, str) else types) & _TYPES and not described & set(schema):
        raise RequestError(
            f"schema={shortened(schema)} does not describe JSON: give a JSON schema, for example "
            '{"title": "Joke", "type": "object", "properties": {"setup": {"type": "string"}}}.'
        )
    return dict(schema)


def arguments_schema(parameters: Mapping[str, Any], name: str) -> Schema:
    """The schema of a tool's arguments, which admits no others than those described.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    schema = {"type": "object", "properties": {}, **parameters}
    if not {"$ref", "anyOf", "oneOf", "allOf", "patternProperties"} & set(schema):
        schema.setdefault("additionalProperties", False)
    return enforceable(closed(schema), name)


def closed(schema: Mapping[str, Any]) -> Schema:
    """A copy that forbids further properties of every object whose properties are described."""

    def close(part: Schema) -> Schema:
        open_ended = {"patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref"}
        if part.get("properties") and not open_ended & set(part):
            part.setdefault("additionalProperties", False)
        return part

    # The branches of allOf describe one object together: none of them may be closed.
    return _each(schema, close, leave=("allOf",))


def relocated(schema: Mapping[str, Any], pointer: str) -> Schema:
    """A copy that can become part of another schema: its references are relative to this JSON pointer."""

    def move(part: Schema) -> Schema:
        if str(part.get("$ref", "")).startswith("#"):
            part["$ref"] = f"#{pointer}{part['$ref'][1:]}"
        return part

    moved = _each(schema, move)
    moved.pop("x-guidance", None)
    return moved


def styled(schema: Mapping[str, Any]) -> Schema:
    """The schema with options that set the white space of its JSON."""
    return {"x-guidance": _STYLE, **{k: v for k, v in schema.items() if k != "x-guidance"}}


def enforceable(schema: Mapping[str, Any], name: str) -> Schema:
    """The schema without the keywords that the grammar compiler refuses. Dropped keywords are logged.

    Args:
        schema: A JSON schema.
        name: Name of the tool or schema, for messages.

    Raises:
        RequestError: A schema that the compiler refuses even without them.
    """
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"The schema of {name!r} is not JSON ({error}): give plain JSON values."
        ) from error
    return copy.deepcopy(_enforceable(text, name))


@lru_cache(maxsize=256)
def _enforceable(text: str, name: str) -> Schema:
    schema = styled({k: v for k, v in json.loads(text).items() if k not in ("$schema", "$id")})
    while error := _problems(schema)[0]:
        smaller = next((step for step in _without_limits(schema) if _problems(step[1])[0] != error), None)
        if smaller is None:
            raise RequestError(
                f"The schema of {name!r} cannot be enforced ({error}): simplify it, or leave enforcement out."
            )
        dropped, schema = smaller
        logger.warning("The schema of %r is enforced without %s: %s", name, dropped, error)
    for warning in _problems(schema)[1]:
        logger.warning("The schema of %r is not enforced in full: %s", name, warning)
    return schema


def _problems(schema: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The grammar compiler's error message (empty where there is none) and warnings."""
    grammar = LLMatcher.grammar_from_json_schema(dict(schema))
    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return (" ".join(messages[0].split()), []) if failed else ("", messages)


def _without_limits(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """What is dropped, and the schema without it: one limit in one place, then one limit everywhere."""
    parts = _parts(schema)
    present = [keyword for keyword in _LIMITS if any(keyword in part for part in parts)]
    for keyword in present:
        for target in [i for i, part in enumerate(parts) if keyword in part]:
            yield f"{keyword!r}={parts[target][keyword]!r}", _dropped(schema, keyword, target)
    for keyword in present:
        yield f"every {keyword!r}", _dropped(schema, keyword, None)


def _parts(schema: Schema) -> list[Schema]:
    """The schema and all schemas in it, inner ones first."""
    parts: list[Schema] = []

    def note(part: Schema) -> Schema:
        parts.append(part)
        return part

    _each(schema, note)
    return parts


def _dropped(schema: Schema, keyword: str, target: int | None) -> Schema:
    """The schema without a keyword in part number `target`; in all parts where that is None."""
    count = itertools.count()

    def drop(part: Schema) -> Schema:
        if next(count) == target or target is None:
            part.pop(keyword, None)
        return part

    return _each(schema, drop)


def _each(
    schema: Mapping[str, Any], change: Callable[[Schema], Schema], leave: tuple[str, ...] = ()
) -> Schema:
    """A copy with a change made to the schema and to all schemas in it, inner ones first.

    Args:
        schema: A JSON schema.
        change: Changes a copied schema; returns what replaces it.
        leave: Keywords whose values stay as they are.
    """

    def inner(value: Any) -> Any:
        return _each(value, change, leave) if isinstance(value, Mapping) else value

    copied: Schema = {}
    for key, value in schema.items():
        if key in leave:
            copied[key] = value
        elif key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            copied[key] = {name: inner(part) for name, part in value.items()}
        elif key in _MANY_SCHEMAS and isinstance(value, list):
            copied[key] = [inner(part) for part in value]
        else:
            copied[key] = inner(value) if key in _ONE_SCHEMA else value
    return change(copied)
