"""Grammars (in llguidance's Lark dialect) that enforce tool calls and schemas while decoding."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, grammar_from

from langchain_eft.chat.schemas import arguments_schema, closed, enforceable, relocated, styled
from langchain_eft.chat.subschemas import Schema
from langchain_eft.chat.tool_formats import END_THINK, THINK, ToolFormat
from langchain_eft.chat.tools import shortened, tool_name, tool_parameters
from langchain_eft.engine.decoding.lark_limits import may_look_ahead
from langchain_eft.engine.errors import RequestError

_CHOICES = {"auto": "auto", "none": "none", "any": "any", "required": "any"}
_TEXT = "TEXT: /(.|\\n)*/"

_KEPT_LENGTH = 2**17
"""Characters of a grammar of which is kept whether it compiles: what callers send must not fill memory."""

Tools = Sequence[Mapping[str, Any]]


def normalize_choice(tool_choice: Any, tools: Tools) -> str:
    """A tool choice of any form as "auto", "none", "any", or the name of the tool to call.

    Args:
        tool_choice: None or False (auto), True (any), "auto", "none", "any", "required", a tool's name, or a
            dictionary in OpenAI's or Anthropic's form.
        tools: OpenAI tool dictionaries.

    Raises:
        RequestError: An unknown tool, or a forced call with no tools.
    """
    word = tool_choice
    if isinstance(word, Mapping):
        function = word.get("function")
        word = (function if isinstance(function, Mapping) else word).get("name") or word.get("type")
    if word is None or isinstance(word, bool):
        word = "any" if word else "auto"
    names = [tool_name(tool) for tool in tools]
    choice = word if word in names else _CHOICES.get(word) if isinstance(word, str) else None
    if choice is None or (choice == "any" and not names):
        bound = ", ".join(map(repr, names)) or "none: bind tools first"
        raise RequestError(
            f"tool_choice={shortened(tool_choice)} cannot be served: give 'auto', 'none', 'any' or the "
            f"name of a bound tool. Bound are {bound}."
        )
    return choice


def calls_grammar(tool_format: ToolFormat, tools: Tools, choice: str, *, parallel: bool) -> str:
    """One call and nothing else; with `parallel`, one or more.

    Args:
        tool_format: The format of calls.
        tools: OpenAI tool dictionaries.
        choice: "any", or the name of the tool to call.
        parallel: Allow several calls. Has no effect where `choice` names a tool.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    chosen = [tool for tool in tools if choice in ("any", tool_name(tool))]
    calls, rules = _calls(tool_format, chosen, parallel=parallel and choice == "any")
    return _lark(f"start: {calls}", *rules)


def strict_grammar(tool_format: ToolFormat, tools: Tools, *, parallel: bool) -> str:
    """Free text, which one call may follow (with `parallel`, several). Calls must follow their schema.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    if tool_format.untagged:
        calls, rules = _calls(tool_format, tools, parallel=parallel)
        tags = [tag for tag in tool_format.opens if tag in tool_format.tokens]
        tagged = "".join(f" | PLAIN? {_literal(tool_format, tag)} calls" for tag in tags)
        # An answer that begins with a brace is read as a call: text must not begin with one.
        plain = "PLAIN: /\\s*[^{\\s](.|\\n)*/"
        return _lark(f"start: PLAIN | calls{tagged}", f"calls: {calls}", plain, *rules)
    tag = tool_format.opens[0]
    calls, rules = _calls(tool_format, tools, parallel=parallel, after=tag)
    token = f" | TEXT {_literal(tool_format, tag)}" if tag in tool_format.tokens else ""
    return _lark(
        f"start: TEXT | head {calls}",
        f"head: written{token}",
        f"written[lazy]: TEXT {_quoted(tag)}",
        _TEXT,
        *rules,
    )


def held_grammar(tool_format: ToolFormat, tools: Tools) -> str:
    """Free text, in which what begins as a call of a tool goes on as one.

    Unlike under `strict_grammar`, a brace begins no call in formats without tags: the answer may be another
    object. The name of a tool and the key of its arguments begin one there.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    if not tool_format.untagged:
        return strict_grammar(tool_format, tools, parallel=True)
    _, rules = _calls(tool_format, tools, parallel=True)
    heads = [tool_format.render_call(tool_name(tool), "").removesuffix("}") for tool in tools]
    first = " | ".join(f"head{i} {_json(_arguments(tool))}" for i, tool in enumerate(tools))
    tags = [tag for tag in tool_format.opens if tag in tool_format.tokens]
    tagged = "".join(f" | TEXT {_literal(tool_format, tag)} call others" for tag in tags)
    return _lark(
        f"start: TEXT | first others{tagged}",
        f'first: ({first}) "}}"',
        f"others: ({_literal(tool_format, tool_format.join)} call)*",
        *(f"head{i}[lazy]: /\\s*/ {_quoted(head)}" for i, head in enumerate(heads)),
        _TEXT,
        *rules,
    )


def compiles(grammar: str) -> bool:
    """Whether the engine will be able to compile a grammar."""
    return _kept(grammar) if len(grammar) <= _KEPT_LENGTH else _compiles(grammar)


def _compiles(grammar: str) -> bool:
    try:
        may_look_ahead(grammar)  # refuses what exceeds a limit
    except RequestError:
        return False
    return not LLMatcher.validate_grammar(grammar_from("lark", grammar))


_kept = lru_cache(maxsize=64)(_compiles)


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """An object of a JSON schema and nothing else.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    return _lark(f"start: {_json(_answer(schema))}")


def union_grammar(
    tool_format: ToolFormat,
    tools: Tools,
    schema: Mapping[str, Any],
    *,
    parallel: bool,
) -> str:
    """Tool calls or an object of a JSON schema; the model chooses.

    Formats without tags admit one call at most, because calls and objects both begin with a brace.

    Raises:
        RequestError: A schema that cannot be enforced.
    """
    if tool_format.untagged:
        return _lark(f"start: {_json(_either([*_call_schemas(tool_format, tools), _answer(schema)]))}")
    calls, rules = _calls(tool_format, tools, parallel=parallel)
    return _lark("start: calls | answer", f"calls: {calls}", f"answer: {_json(_answer(schema))}", *rules)


def after_reasoning(tool_format: ToolFormat, grammar: str, *, opened: bool) -> str:
    """A grammar with reasoning before it, for models that reason before they answer.

    Args:
        tool_format: Names the tags that are single tokens.
        grammar: The grammar of what follows the reasoning.
        opened: Whether the prompt has opened the reasoning already: the answer then has to close it.
    """
    token = f" | THOUGHT {_literal(tool_format, END_THINK)}" if END_THINK in tool_format.tokens else ""
    thoughts = "thoughts" if opened else f"({_literal(tool_format, THINK)} thoughts)?"
    return grammar.replace("start:", "enforced:", 1) + _lark(
        f"start: {thoughts} enforced",
        f"thoughts: (closed{token}) /\\s*/",
        f"closed[lazy]: THOUGHT {_quoted(END_THINK)}",
        "THOUGHT: /(.|\\n)*/",
    )


def _answer(schema: Mapping[str, Any]) -> Schema:
    return enforceable(closed(schema), str(schema.get("title", "answer")))


def _calls(
    tool_format: ToolFormat, tools: Tools, *, parallel: bool, after: str = ""
) -> tuple[str, list[str]]:
    """The right-hand side of a rule for calls, and the rules that it needs.

    Args:
        tool_format: The format of calls.
        tools: The tools that may be called.
        parallel: Allow more than one call.
        after: The beginning of the first call, where another rule has it already.
    """
    first = _literal(tool_format, (tool_format.begin + tool_format.call_begin).removeprefix(after))
    more = f" ({_literal(tool_format, tool_format.join + tool_format.call_begin)} call)*" if parallel else ""
    if tool_format.arguments:
        bodies = [_json(_either(_call_schemas(tool_format, tools)))]
    else:
        bodies = [
            f"{_literal(tool_format, tool_name(tool) + tool_format.name_end)} {_json(_arguments(tool))}"
            for tool in tools
        ]
    end = _literal(tool_format, tool_format.call_end)
    return (
        f"{first} call{more} {_literal(tool_format, tool_format.end)}",
        [f"call: ({' | '.join(bodies)}) {end}"],
    )


def _arguments(tool: Mapping[str, Any]) -> Schema:
    return arguments_schema(tool_parameters(tool), tool_name(tool))


def _call_schemas(tool_format: ToolFormat, tools: Tools) -> list[Schema]:
    """The JSON schema of a whole call of each tool."""
    return [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool_name(tool)},
                tool_format.arguments: relocated(_arguments(tool), f"/properties/{tool_format.arguments}"),
            },
            "required": ["name", tool_format.arguments],
            "additionalProperties": False,
        }
        for tool in tools
    ]


def _either(schemas: Sequence[Schema]) -> Schema:
    """A schema of all schemas: at the first brace the lexer commits itself to one JSON grammar."""
    if len(schemas) == 1:
        return schemas[0]
    return {"anyOf": [relocated(schema, f"/anyOf/{i}") for i, schema in enumerate(schemas)]}


def _lark(*rules: str) -> str:
    return "\n".join(rules) + "\n"


def _json(schema: Schema) -> str:
    return f"%json {json.dumps(styled(schema), ensure_ascii=False)}"


def _literal(tool_format: ToolFormat, text: str) -> str:
    """Text as a Lark sequence, which names tags that are single tokens by their id."""
    tags = "|".join(map(re.escape, tool_format.tokens))
    pieces = re.split(f"({tags})", text) if tags else [text]
    return " ".join(
        f"<[{tool_format.tokens[piece]}]>" if piece in tool_format.tokens else _quoted(piece)
        for piece in pieces
        if piece
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
