"""Functions, classes and dictionaries as OpenAI tool dictionaries."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from langchain_eft.chat.subschemas import Schema, is_recursive
from langchain_eft.engine.decoding.schema_limits import refuse_nesting
from langchain_eft.engine.errors import RequestError


def tool_dicts(tools: Iterable[Any]) -> list[dict[str, Any]]:
    """Functions, LangChain tools, classes and schema dictionaries as OpenAI tool dictionaries.

    OpenAI tool dictionaries stay as they are.

    Raises:
        RequestError: No list of tools, a value that does not describe a tool, a tool without a name, or
            arguments that are no object.
    """
    if isinstance(tools, str | Mapping) or not isinstance(tools, Iterable):
        raise RequestError(f"tools={shortened(tools)} is not a list of tools: give a list, such as [search].")
    return [_tool_dict(tool) for tool in tools]


def _tool_dict(tool: Any) -> dict[str, Any]:
    try:
        refuse_nesting(tool)
        converted = convert_to_openai_tool(tool)
        parameters = _lost_parameters(tool)
    except Exception as error:  # pydantic, inspect and LangChain each raise their own
        raise RequestError(
            f"tools holds {shortened(tool)}, which cannot be read as a tool ({error}): give a function with "
            "type hints, a BaseTool, a pydantic class, a TypedDict or a dictionary with a name."
        ) from error
    if converted.get("type") != "function" or not isinstance(converted.get("function"), dict):
        raise RequestError(
            f"tools holds {shortened(tool)} of type {converted.get('type')!r}, which only its own provider "
            "can run: give a function or a schema."
        )
    name = converted["function"].get("name")
    if not isinstance(name, str) or not name.strip():
        raise RequestError(f"tools holds {shortened(tool)} with name={name!r}: give the tool a name.")
    if parameters is not None:
        converted = {**converted, "function": {**converted["function"], "parameters": parameters}}
    schema = tool_parameters(converted)
    if not isinstance(schema, Mapping):
        raise RequestError(f"The tool {name!r} has parameters={shortened(schema)}: give a JSON schema.")
    kinds = schema.get("type", "object")
    if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        raise RequestError(
            f"The arguments of the tool {name!r} are of type {kinds!r}, but those of a call are an object: "
            "put the value into a field of an object, or use with_structured_output(method='json_schema')."
        )
    return converted


def _lost_parameters(tool: Any) -> Schema | None:
    """The schema of a tool's arguments where LangChain's conversion drops a part of it.

    It keeps a schema without `properties` only inside a tool dictionary, and breaks off recursive references.
    """
    if isinstance(tool, Mapping):
        if "name" in tool:
            return tool["schema"] if isinstance(tool.get("schema"), Mapping) else None
        return None if "properties" in tool or "title" not in tool else _untitled(tool) or None
    described = tool
    if isinstance(tool, BaseTool):
        described = tool.tool_call_schema
    elif inspect.isroutine(tool):
        described = create_schema_from_function(
            tool.__name__, tool, filter_args=(), parse_docstring=True, include_injected=False
        )
    schema = described if isinstance(described, Mapping) else model_schema(described)
    return _untitled(schema) if schema and is_recursive(schema) else None


def model_schema(model: Any) -> Schema | None:
    """The JSON schema of a pydantic class of version 1 or 2; None for any other value."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model.model_json_schema()
    if isinstance(model, type) and hasattr(model, "schema") and hasattr(model, "__fields__"):
        schema: Schema = model.schema()
        return schema
    return None


def _untitled(schema: Mapping[str, Any]) -> Schema:
    """The schema without what a tool dictionary says elsewhere."""
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def refuse_repeated_names(tools: Sequence[Mapping[str, Any]]) -> None:
    """Refuse two tools of one name.

    Args:
        tools: OpenAI tool dictionaries.

    Raises:
        RequestError: A name occurs more than once.
    """
    for name, count in Counter(map(tool_name, tools)).items():
        if count > 1:
            raise RequestError(f"tools holds the name {name!r} {count} times: give every tool its own name.")


def tool_name(tool: Mapping[str, Any]) -> str:
    """The name in an OpenAI tool dictionary."""
    name: str = tool["function"]["name"]
    return name


def tool_parameters(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the arguments in an OpenAI tool dictionary."""
    return tool["function"].get("parameters") or {"type": "object", "properties": {}}


def shortened(value: Any) -> str:
    """A value as error messages show it: at most 120 characters."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
