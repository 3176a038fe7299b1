"""Objects by a schema: values taken from a text, or from what a tool returned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.smol.tasks.tools.requests import ask_for
from training.smol.tasks.tools.results import Result
from training.smol.tasks.tools.signatures import Tool, argument_name, random_tool
from training.smol.tasks.tools.values import TEXT, Value
from training.smol.tasks.tools.words import Words

INSTRUCTION = "Respond only with a JSON object that matches this JSON schema:\n"
"""What `langchain_eft.chat.structured_output` tells a model about a schema."""


@dataclass(frozen=True)
class ObjectRequest:
    """An object that an answer has to be.

    Attributes:
        schema: Its JSON schema.
        value: The object.
        request: What the user says; empty where the values come from a tool's result.
    """

    schema: dict[str, Any]
    value: dict[str, Value]
    request: str = ""


def instruction(schema: Mapping[str, Any]) -> str:
    """The system message that asks for an object of a schema."""
    return INSTRUCTION + json.dumps(schema, ensure_ascii=False)


def extraction(words: Words) -> ObjectRequest:
    """A text with values, and the object that holds them."""
    tool = random_tool(words)
    while not tool.kinds:
        tool = random_tool(words)
    value = tool.arguments(words)
    parameters = tool.schema["function"]["parameters"]
    return ObjectRequest(_titled(words, tool.name, parameters), value, ask_for(words, tool, value))


def report(words: Words, tool: Tool, arguments: Mapping[str, Value], result: Result) -> ObjectRequest:
    """An object that holds a tool's result, and some of the call's arguments."""
    r = words.random
    field = r.choice((tool.phrase.split()[-1], argument_name(words), "result", "value"))
    echoed = [name for name in arguments if name != field and r.random() < 0.5]
    properties = {name: dict(tool.kind(name).schema) for name in echoed}
    properties[field] = _schema_of(result.value)
    value = {**{name: arguments[name] for name in echoed}, field: result.value}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    made_up = "".join(map(str.capitalize, words.words(1, 2)))
    title = r.choice((made_up, tool.phrase.split()[-1].capitalize(), "Result", "Summary"))
    return ObjectRequest(_titled(words, title, parameters), value)


def _titled(words: Words, title: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    described = (
        {"description": f"The {words.word()} of a {words.word()}."} if words.random.random() < 0.5 else {}
    )
    return {"title": title, **described, **parameters}


def _schema_of(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case list():
            return {"type": "array", "items": _schema_of(value[0])}
        case _:
            return dict(TEXT)
