"""Random tools: a name, a description and a JSON schema."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .vocabulary import ADJECTIVES, ARGUMENT_NAMES, NOUNS, VERBS

if TYPE_CHECKING:
    import random

    from .argument_source import ArgumentSource

# The kind that tools take most stands twice.
KINDS = ["integer", *ARGUMENT_NAMES]
SCALAR_TYPES = {"integer": "integer", "number": "number", "boolean": "boolean"}
ITEM_TYPES = {"array": "string", "ints": "integer"}


@dataclass(frozen=True)
class Tool:
    """A tool that an assistant can call.

    Attributes:
        name: The name to call it by.
        schema: The description that the assistant is shown, in the function-calling form.
        phrase: The name as words, for requests in prose.
        kinds: The kind of each argument, by argument name.
    """

    name: str
    schema: dict[str, Any]
    phrase: str
    kinds: dict[str, str]


def function_schema(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the function-calling description of a tool."""
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def random_tool(source: ArgumentSource) -> Tool:
    """Return a tool with zero to three arguments."""
    r = source.random
    kinds = _arguments(r)
    properties = _properties(r, kinds)
    name = _name(r)
    phrase = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower().replace("_", " ")
    description = r.choice(
        [
            f"{phrase.capitalize()}.",
            f"Applies {phrase} to the input.",
            f"Use this to {phrase}.",
            f"Returns the {phrase}",
            f"{phrase.capitalize()} for a given {next(iter(kinds), 'request')}.",
        ]
    )
    parameters = _parameters(r, properties)
    return Tool(name, function_schema(name, description, parameters), phrase, kinds)


def _arguments(r: random.Random) -> dict[str, str]:
    count = r.choice([0, 1, 1, 1, 2, 2, 3])
    named: dict[str, str] = {}
    for kind in [r.choice(KINDS) for _ in range(count)]:
        stem = name = r.choice(ARGUMENT_NAMES[kind])
        suffix = 2
        while name in named:
            name = f"{stem}{suffix}"
            suffix += 1
        named[name] = kind
    return named


def _properties(r: random.Random, kinds: dict[str, str]) -> dict[str, Any]:
    described = r.random() < 0.3
    properties: dict[str, Any] = {}
    for name, kind in kinds.items():
        schema: dict[str, Any] = (
            {"type": "array", "items": {"type": ITEM_TYPES[kind]}}
            if kind in ITEM_TYPES
            else {"type": SCALAR_TYPES.get(kind, "string")}
        )
        if described:
            description = r.choice(
                [
                    f"The {name.replace('_', ' ')}.",
                    f"{name} to use",
                    f"the {name} of the {r.choice(NOUNS)}",
                ]
            )
            schema = {"description": description, **schema}
        properties[name] = schema
    return properties


def _name(r: random.Random) -> str:
    verb, noun = r.choice(VERBS), r.choice(NOUNS)
    name = r.choice(
        [
            f"{verb}_{noun}",
            f"{verb}_{noun}",
            f"{verb}_{r.choice(ADJECTIVES)}_{noun}",
            f"{r.choice(ADJECTIVES)}_{noun}",
            f"{noun}_{verb}",
            f"{noun}_tool",
            f"{r.choice(ADJECTIVES)}_{noun}_tool",
            f"{r.choice(ADJECTIVES)}_function",
            f"my_{verb}_tool",
            verb + noun.capitalize(),
            f"{noun}_{r.choice(NOUNS)}",
        ]
    )
    if r.random() < 0.06:
        name += r.choice(["_no_args", "_v2", "_api", "_fn", "_2"])
    if r.random() < 0.06:
        name = name.title().replace("_", "")
    return name


def _parameters(r: random.Random, properties: dict[str, Any]) -> dict[str, Any]:
    # Servers differ in the order of these keys, so the model has to see more than one.
    if not properties:
        return {"properties": {}, "type": "object"}
    if r.random() < 0.4:
        return {"type": "object", "properties": properties, "required": list(properties)}
    return {"properties": properties, "required": list(properties), "type": "object"}
