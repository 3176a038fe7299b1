"""User messages that ask for a call of a tool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from .argument_source import Value
    from .tool_signatures import Tool


def ask_for(r: random.Random, tool: Tool, arguments: Mapping[str, Value]) -> str:
    """Return a user message whose right answer is `tool` called with `arguments`."""
    if not arguments:
        return r.choice(_without_arguments(tool))
    options = _with_arguments(tool, arguments)
    if len(arguments) == 2 and all(_is_numeric(value) for value in arguments.values()):
        options += _about_two_numbers(tool, arguments)
    if len(arguments) == 1 and "city" in tool.kinds.values():
        options += _about_a_city(tool, next(iter(arguments.values())))
    return r.choice(options)


def _show(value: Value) -> str:
    return json.dumps(value) if isinstance(value, (list, bool)) else str(value)


def _is_numeric(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _without_arguments(tool: Tool) -> list[str]:
    name, phrase = tool.name, tool.phrase
    return [
        f"What is the value of {name}()? Use the tool.",
        f"Call {name}.",
        f"Please run the {name} tool.",
        f"Use {name} and tell me the result.",
        f"{phrase.capitalize()}, please.",
        f"Can you {phrase}?",
        f"What does {name} return?",
    ]


def _with_arguments(tool: Tool, arguments: Mapping[str, Value]) -> list[str]:
    name, phrase = tool.name, tool.phrase
    values = ", ".join(_show(value) for value in arguments.values())
    spoken = " and ".join(f"{n.replace('_', ' ')} {_show(v)}" for n, v in arguments.items())
    assigned = ", ".join(f"{n}={_show(v)}" for n, v in arguments.items())
    return [
        f"What is the value of {name}({values})? Use the tool.",
        f"What is {name}({values})?",
        f"Call {name} with {assigned}.",
        f"Use the {name} tool with {spoken}.",
        f"Please {phrase} for {spoken}.",
        f"Can you {phrase} with {spoken}?",
        f"Compute {name}({values}).",
        f"I need you to {phrase}: {assigned}.",
        f"Run {name} on {values}.",
        f"{phrase.capitalize()} for {values}, please.",
        f"Using the tool, {phrase} with {assigned}.",
        f"What is the {phrase} of {values}?",
        f"Tell me the {phrase} for {values}.",
    ]


def _about_two_numbers(tool: Tool, arguments: Mapping[str, Value]) -> list[str]:
    first, second = (_show(value) for value in arguments.values())
    return [
        f"What is {first} + {second}?",
        f"What is the sum of {first} and {second}?",
        f"{tool.phrase.capitalize()} {first} and {second}.",
        f"What is {tool.phrase} of {first} and {second}?",
    ]


def _about_a_city(tool: Tool, city: Value) -> list[str]:
    phrase = tool.phrase
    weather = "weather" in tool.name
    return [
        f"What's the {phrase} in {city}?",
        f"How is the {tool.name.split('_')[-1]} in {city}?",
        f"Tell me about {phrase} in {city} today.",
        f"What is the weather in {city}?" if weather else f"{phrase} {city}",
    ]
