"""Functions, classes and dictionaries as OpenAI tool dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_eft.engine.errors import RequestError


def tool_dicts(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Functions, LangChain tools, classes and schema dictionaries as OpenAI tool dictionaries.

    OpenAI tool dictionaries stay as they are.

    Raises:
        RequestError: A value that does not describe a tool, or a tool without a name.
    """
    return [_tool_dict(tool) for tool in tools]


def _tool_dict(tool: Any) -> dict[str, Any]:
    try:
        converted = convert_to_openai_tool(tool)
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
    return converted


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
