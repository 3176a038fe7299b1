"""Tool choice and schemas to grammars (llguidance's lark), which the engine decodes under."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_eft.chat.schemas import Schema, arguments_schema, closed, enforceable, relocated, styled
from langchain_eft.chat.tool_formats import END_THINK, THINK, ToolFormat
from langchain_eft.chat.tools import shortened, tool_name, tool_parameters
from langchain_eft.engine.errors import RequestError

_CHOICES = {"auto": "auto", "none": "none", "any": "any", "required": "any"}
_TEXT = "TEXT: /(.|\\n)*/"

Tools = Sequence[Mapping[str, Any]]


def normalize_choice(tool_choice: Any, tools: Tools) -> str:
    """Any spelling of a tool choice as "auto", "none", "any", or the name of the tool that must be called.

    Args:
        tool_choice: None or False (auto), True (any), a word, a tool's name, or OpenAI's and Anthropic's
            dictionaries.
        tools: OpenAI tool dictionaries.

    Raises:
        RequestError: An unknown tool, or a forced call with no tools.
    """
    asked = tool_choice
    if isinstance(asked, Mapping):
        function = asked.get("function")
        asked = (function if isinstance(function, Mapping) else asked).get("name") or asked.get("type")
    if asked is None or isinstance(asked, bool):
        asked = "any" if asked else "auto"
    names = [tool_name(tool) for tool in tools]
    choice = asked if asked in names else _CHOICES.get(asked) if isinstance(asked, str) else None
    if choice is None or (choice == "any" and not names):
        bound = ", ".join(map(repr, names)) or "none: bind tools first"
        raise RequestError(
            f"tool_choice={shortened(tool_choice)} cannot be served: give 'auto', 'none', 'any' or the "
            f"name of a bound tool. Bound are {bound}."
        )
    return choice


def calls_grammar(format: ToolFormat, tools: Tools, choice: str, *, parallel: bool) -> str:  # noqa: A002
    """A call and nothing else; with `parallel`, one or more.

    Args:
        format: How calls are spelled.
        tools: OpenAI tool dictionaries.
        choice: "any", or the name of the tool to call.
        parallel: Allow several calls, where any tool may be called.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    chosen = [tool for tool in tools if choice in ("any", tool_name(tool))]
    calls, rules = _calls(format, chosen, parallel=parallel and choice == "any")
    return _lark(f"start: {calls}", *rules)


def strict_grammar(format: ToolFormat, tools: Tools, *, parallel: bool) -> str:  # noqa: A002
    """Free text, optionally followed by a call (with `parallel`, calls), which once begun must be right.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    if format.untagged:
        calls, rules = _calls(format, tools, parallel=parallel)
        heads = [f"PLAIN? {_literal(format, tag)}" for tag in format.opens if tag in format.tokens]
        tagged = "".join(f" | {head} calls" for head in heads)
        # An answer that begins with a brace is read as a call, so that text may not begin with one.
        plain = "PLAIN: /\\s*[^{\\s](.|\\n)*/"
        return _lark(f"start: PLAIN | calls{tagged}", f"calls: {calls}", plain, *rules)
    tag = format.opens[0]
    calls, rules = _calls(format, tools, parallel=parallel, after=tag)
    token = f" | TEXT {_literal(format, tag)}" if tag in format.tokens else ""
    return _lark(
        f"start: TEXT | head {calls}",
        f"head: spelled{token}",
        f"spelled[lazy]: TEXT {_quoted(tag)}",
        _TEXT,
        *rules,
    )


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """An object of this JSON schema and nothing else.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    return _lark(f"start: {_json(_answer(schema))}")


def union_grammar(
    format: ToolFormat,  # noqa: A002
    tools: Tools,
    schema: Mapping[str, Any],
    *,
    parallel: bool,
) -> str:
    """Tool calls or an object of this schema; the model chooses.

    Formats without tags get one call at most, since both begin with a brace.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    if format.untagged:
        return _lark(f"start: {_json(_either([*_call_schemas(format, tools), _answer(schema)]))}")
    calls, rules = _calls(format, tools, parallel=parallel)
    return _lark("start: calls | answer", f"calls: {calls}", f"answer: {_json(_answer(schema))}", *rules)


def after_reasoning(format: ToolFormat, grammar: str, *, opened: bool) -> str:  # noqa: A002
    """The grammar, with the reasoning before it that a model was trained to begin with.

    Args:
        format: Knows which tags are single tokens.
        grammar: What comes after the reasoning.
        opened: The prompt has opened the reasoning already, so that it has to be closed first.
    """
    token = f" | THOUGHT {_literal(format, END_THINK)}" if END_THINK in format.tokens else ""
    thoughts = "thoughts" if opened else f"({_literal(format, THINK)} thoughts)?"
    return grammar.replace("start:", "spoken:", 1) + _lark(
        f"start: {thoughts} spoken",
        f"thoughts: (closed{token}) /\\s*/",
        f"closed[lazy]: THOUGHT {_quoted(END_THINK)}",
        "THOUGHT: /(.|\\n)*/",
    )


def _answer(schema: Mapping[str, Any]) -> Schema:
    return enforceable(closed(schema), str(schema.get("title", "answer")))


def _calls(format: ToolFormat, tools: Tools, *, parallel: bool, after: str = "") -> tuple[str, list[str]]:  # noqa: A002
    """The right-hand side that spells calls, and the rules it needs.

    Args:
        format: How calls are spelled.
        tools: The tools that may be called.
        parallel: Allow more than one.
        after: A beginning that stands already.
    """
    first = _literal(format, (format.begin + format.call_begin).removeprefix(after))
    more = f" ({_literal(format, format.join + format.call_begin)} call)*" if parallel else ""
    if format.arguments:
        bodies = [_json(_either(_call_schemas(format, tools)))]
    else:
        bodies = [
            f"{_literal(format, tool_name(tool) + format.name_end)} {_json(_arguments(tool))}"
            for tool in tools
        ]
    end = _literal(format, format.call_end)
    return (
        f"{first} call{more} {_literal(format, format.end)}",
        [f"call: ({' | '.join(bodies)}) {end}"],
    )


def _arguments(tool: Mapping[str, Any]) -> Schema:
    return arguments_schema(tool_parameters(tool), tool_name(tool))


def _call_schemas(format: ToolFormat, tools: Tools) -> list[Schema]:  # noqa: A002
    """Each tool's whole call as a JSON schema."""
    return [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool_name(tool)},
                format.arguments: relocated(_arguments(tool), f"/properties/{format.arguments}"),
            },
            "required": ["name", format.arguments],
            "additionalProperties": False,
        }
        for tool in tools
    ]


def _either(schemas: Sequence[Schema]) -> Schema:
    """One of the schemas. One JSON grammar for all: the lexer commits to a grammar at the first brace."""
    if len(schemas) == 1:
        return schemas[0]
    return {"anyOf": [relocated(schema, f"/anyOf/{i}") for i, schema in enumerate(schemas)]}


def _lark(*rules: str) -> str:
    return "\n".join(rules) + "\n"


def _json(schema: Schema) -> str:
    return f"%json {json.dumps(styled(schema), ensure_ascii=False)}"


def _literal(format: ToolFormat, text: str) -> str:  # noqa: A002
    """Text as a lark sequence; tags that are single tokens by their id."""
    tags = "|".join(map(re.escape, format.tokens))
    pieces = re.split(f"({tags})", text) if tags else [text]
    return " ".join(
        f"<[{format.tokens[piece]}]>" if piece in format.tokens else _quoted(piece)
        for piece in pieces
        if piece
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
