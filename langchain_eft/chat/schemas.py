"""JSON schemas: from what callers give to what the grammar compiler accepts."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher

from langchain_eft.chat.one_of import exclusive_as_any
from langchain_eft.chat.subschemas import Place, Schema, each, field_name, places
from langchain_eft.chat.tools import model_schema, shortened, tool_dicts
from langchain_eft.engine.decoding.schema_limits import check_schema, refuse_nesting
from langchain_eft.engine.errors import RequestError

_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # No \uXXXX: text comes out as characters, never as escapes.
    "json_allowed_escapes": 'nrbtf\\"',
}
"""JSON as `json.dumps` and the templates' `tojson` write it."""

_OTHER_THAN = re.compile(r"\^\(\?!\^\[([^]]+)]\*\$\)")
"""The lookahead of pydantic's pattern of decimals: the text has some character that is not in a set."""

_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")

_CACHED_LENGTH = 2**14
"""Characters of a schema that is kept: objects take about ten times the memory of their text."""

_SEARCHED_LENGTH = 2**22
"""Characters that are compiled to find the part of a schema that cannot be enforced."""

_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}


def schema_dict(schema: Any) -> Schema:
    """A pydantic class, a TypedDict, or a plain or wrapped schema dictionary as a plain JSON schema.

    Raises:
        RequestError: A value that does not describe JSON, or one that is nested too deep.
    """
    if isinstance(schema, Mapping):
        refuse_nesting(schema)
        return _unwrapped(schema)
    try:
        if (described := model_schema(schema)) is not None:
            return described
        function = tool_dicts([schema])[0]["function"]
        named = {"title": function["name"], "description": function.get("description", "")}
        return {**named, **function.get("parameters", {})}
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
    described = {"properties", "patternProperties", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"}
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
    """A copy in which a part with described properties is an object, and has no others."""

    def close(part: Schema) -> Schema:
        if part.get("properties") or part.get("patternProperties"):
            part.setdefault("type", "object")
        open_ended = {"patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref"}
        if part.get("properties") and not open_ended & set(part):
            part.setdefault("additionalProperties", False)
        return part

    # The branches of allOf describe one object together: none of them may be closed.
    return each(schema, close, leave=("allOf",))


def relocated(schema: Mapping[str, Any], pointer: str) -> Schema:
    """A copy that can become part of another schema: its references are relative to this JSON pointer."""

    def move(part: Schema) -> Schema:
        if str(part.get("$ref", "")).startswith("#"):
            part["$ref"] = f"#{pointer}{part['$ref'][1:]}"
        return part

    moved = each(schema, move)
    moved.pop("x-guidance", None)
    return moved


def styled(schema: Mapping[str, Any]) -> Schema:
    """The schema with options that set the white space of its JSON."""
    return {"x-guidance": _STYLE, **{k: v for k, v in schema.items() if k != "x-guidance"}}


def enforceable(schema: Mapping[str, Any], name: str) -> Schema:
    """The schema in the form in which the grammar compiler enforces all of it.

    An unknown `format` is left out: to JSON Schema it is an annotation.

    Args:
        schema: A JSON schema.
        name: Name of the tool or schema, for messages.

    Raises:
        RequestError: With the field that the compiler cannot enforce, or the limit that the schema exceeds.
    """
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"The schema of {shortened(name)} is not JSON ({error}): give plain JSON values."
        ) from error
    try:
        return copy.deepcopy(_kept(text)) if len(text) <= _CACHED_LENGTH else _enforceable(text)
    except RequestError as error:
        raise RequestError(f"The schema of {shortened(name)} cannot be enforced{error}") from error


def _enforceable(text: str) -> Schema:
    stated = {key: value for key, value in json.loads(text).items() if key not in ("$schema", "$id")}
    try:
        check_schema(stated)
    except RequestError as error:
        raise RequestError(f". {error}") from error
    schema = exclusive_as_any(each(styled(stated), _as_compiled))
    if _problem(schema):
        place, part, reason = _faulty_part(schema)
        where = f" in its field {field_name(place)!r}" if field_name(place) else ""
        stated = {key: value for key, value in part.items() if key != "x-guidance"}
        raise RequestError(
            f"{where}: {reason} The part is {shortened(stated)}: leave out or replace what cannot be "
            "enforced, and check it in the answer."
        )
    return schema


_kept = lru_cache(maxsize=128)(_enforceable)


def _faulty_part(schema: Schema) -> tuple[Place, Mapping[str, Any], str]:
    """The smallest part of a schema that cannot be enforced, if it is soon found; else the whole schema."""
    shared: Schema = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    searched = 0
    for place, part in places(schema):
        alone = {**shared, **styled(part)}
        searched += len(json.dumps(alone))
        if searched > _SEARCHED_LENGTH:
            break
        if reason := _problem(alone):
            return place, part, reason
    return (), schema, _problem(schema)


def _as_compiled(part: Schema) -> Schema:
    """A schema without what says nothing, and with other words for what the compiler does not know."""
    text_format = part.get("format")
    if isinstance(text_format, str) and not (len(text_format) < 32 and _is_enforced(text_format)):
        del part["format"]
    if part.get("uniqueItems") is False:
        del part["uniqueItems"]
    for key in (*_LOWER, *_UPPER):
        bound = part.get(key)
        if part.get("type") == "integer" and isinstance(bound, int):
            # Beyond 64 bits stands a bound within, which the compiler can hold; it is stricter.
            if key in _LOWER and bound <= -(2**63):
                part[key] = -(2**62)
            elif key in _UPPER and bound >= 2**63 - 1:
                part[key] = 2**62
    lookahead = _OTHER_THAN.match(str(part.get("pattern", "")))
    if lookahead:
        part["pattern"] = f"^{part['pattern'][lookahead.end() :]}"
        part["allOf"] = [*part.get("allOf", []), {"type": "string", "pattern": f"[^{lookahead[1]}]"}]
    return part


@lru_cache(maxsize=256)
def _is_enforced(text_format: str) -> bool:
    return not _problem({"type": "string", "format": text_format})


def _problem(schema: Mapping[str, Any]) -> str:
    """Why a schema cannot be enforced, as a sentence; empty where it can."""
    inexact = next((number for _, part in places(schema) for number in _inexact(part)), None)
    if inexact is not None:
        return f"{inexact} is not exact as a 64-bit number, which the compiler reads it as."
    try:
        failed, messages = LLMatcher.validate_grammar_with_warnings(
            LLMatcher.grammar_from_json_schema(json.dumps(schema))
        )
    except ValueError as error:
        failed, messages = True, [str(error)]
    if not failed:
        return ""
    if "oneOf constraints" in messages[0]:
        return "a value may hold in several alternatives of oneOf, as far as is seen; only anyOf allows that."
    return f"{' '.join(messages[0].split())}."


def _inexact(part: Mapping[str, Any]) -> Iterator[int]:
    """The integers in a schema's own keywords that have no exact 64-bit float."""
    keywords = (*_LOWER, *_UPPER, "multipleOf", "const", "enum")
    values = [part[key] for key in keywords if key in part]
    while values:
        value = values.pop()
        if isinstance(value, Mapping | list):
            values.extend(value.values() if isinstance(value, Mapping) else value)
        elif isinstance(value, int) and (abs(value) >= 2**1000 or int(float(value)) != value):
            yield value
