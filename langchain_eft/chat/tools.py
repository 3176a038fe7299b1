"""Functions, classes and dictionaries as OpenAI tool dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_eft.engine.errors import RequestError


def tool_dicts(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Functions, tools, classes and schema dictionaries as OpenAI tool dictionaries.

    Raises:
        RequestError: Something that is no tool, a tool without a name, or two of one name.
    """
    converted = [_tool_dict(tool) for tool in tools]
    counts = Counter(tool_name(tool) for tool in converted)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise RequestError(
            f"tools holds the name {twice[0]!r} {counts[twice[0]]} times: give every tool its own."
        )
    return converted


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
        raise RequestError(f"tools holds {shortened(tool)} with name={name!r}: give it a name.")
    return converted


def tool_name(tool: Mapping[str, Any]) -> str:
    """Name of an OpenAI tool dictionary."""
    name: str = tool["function"]["name"]
    return name


def tool_parameters(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Schema of the arguments of an OpenAI tool dictionary."""
    return tool["function"].get("parameters") or {"type": "object", "properties": {}}


def shortened(value: Any) -> str:
    """A value as an error message shows it."""
    shown = repr(value)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."
