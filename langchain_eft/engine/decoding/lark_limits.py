"""What a grammar in llguidance's Lark dialect takes to compile, read before the compiler sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from langchain_eft.engine.decoding.grammar_limits import (
    MAX_FORCED_BYTES,
    MIN_PATTERN_LENGTH,
    Definition,
    pattern_length,
    refuse_combinations,
    refuse_deep,
    refuse_large,
    resolve,
)
from langchain_eft.engine.decoding.schema_limits import check_schema
from langchain_eft.engine.errors import RequestError

_TOKEN = re.compile(
    r"""
      (?P<space> [ \t]+ | (?:\#|//)[^\n]* | (?:\r?\n)+ )
    | (?P<value> %(?:json|regex|llguidance) )
    | (?P<nested> %lark )
    | (?P<name> !?[_?]?[a-z][_a-z0-9-]* | _?[A-Z][_A-Z0-9-]* )
    | (?P<string> "(?:\\(?:["\\/bfnrt]|u[a-fA-F0-9]{4}|x[a-fA-F0-9]{2})|[^"\\\x00-\x1f\x7f])*"i? )
    | (?P<regex> /(?:\\.|[^/\\])+/[imslux]* )
    | (?P<special> <[^<>\s]+> | @[a-zA-Z0-9_-]+ )
    | (?P<number> 0[xX][0-9a-fA-F]+ | [+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)? )
    | (?P<sign> -> | \.\. | :: | %[a-z]+ | [][(){}|&~=:,._+*?\#] )
    """,
    re.VERBOSE,
)
"""The tokens of the dialect, as its lexer has them."""

_OPEN, _CLOSE = ("(", "["), (")", "]")
_JSON_SPACE = re.compile(r"[ \t\r\n]*")
_JSON = json.JSONDecoder()


class Token(NamedTuple):
    """A token of a grammar."""

    kind: str
    text: str  # its text; of a JSON value only the keyword before it
    levels: int = 0  # levels of a JSON schema
    length: float = 0  # bytes that it may write at most, with repetitions written out


def may_look_ahead(grammar: str) -> bool:
    """Whether the compiler may look ahead in a grammar; what it could not compile safely is refused.

    Raises:
        RequestError: With what is too long, too deep or too wide, or with the line that cannot be read.
    """
    refuse_large(len(grammar.encode("utf-8", "replace")))
    definitions = _definitions(list(_tokens(grammar)))
    resolved = resolve(definitions)
    refuse_deep(max(each.levels for each in resolved.values()))
    for name in (name for name, each in definitions.items() if each.joins):
        parts = resolved[name].joins + 1
        length = min(resolved[name].length / parts, 1e12) + MIN_PATTERN_LENGTH
        refuse_combinations(length ** min(parts, 20))  # parts of equal length have the largest product
    return max(each.length for each in resolved.values()) <= MAX_FORCED_BYTES


def _tokens(grammar: str) -> Iterator[Token]:
    place = 0
    while place < len(grammar):
        match = _TOKEN.match(grammar, place)
        if match is None or match.lastgroup == "nested":
            raise _unreadable(grammar, place)
        kind, text = str(match.lastgroup), match.group()
        place = match.end()
        if kind == "value":
            start = _JSON_SPACE.match(grammar, place).end()  # type: ignore[union-attr]
            try:
                value, place = _JSON.raw_decode(grammar, start)
            except (ValueError, RecursionError) as error:
                raise _unreadable(grammar, start) from error
            taken = check_schema(value) if text == "%json" and isinstance(value, dict) else Definition(0)
            yield Token(kind, text, taken.levels, max(taken.length, place - start if text == "%regex" else 0))
        elif kind in ("string", "regex", "special"):
            yield Token(kind, text, 0, pattern_length(text) if kind == "regex" else len(text.encode()))
        elif kind != "space":
            yield Token(kind, text)


def _unreadable(grammar: str, place: int) -> RequestError:
    line = grammar.count("\n", 0, place) + 1
    return RequestError(
        f"Line {line} cannot be read from {grammar[place : place + 40]!r} on: write each definition as "
        '`name: "text" | /pattern/ | other_name | %json {...}`.'
    )


def _definitions(tokens: list[Token]) -> dict[str, Definition]:
    """What the definitions of a grammar take, by name. What stands before them has no name."""
    starts = [*_heads(tokens), len(tokens)]
    definitions = {"": _definition(tokens[: starts[0]])}
    for start, end in pairwise(starts):
        name, one = _plain_name(tokens[start]), _definition(tokens[start + 1 : end])
        if name in definitions:
            other = definitions[name]
            one.references.update(other.references)
            one = Definition(
                one.levels + other.levels, one.length + other.length, one.joins + other.joins, one.references
            )
        definitions[name] = one
    return definitions


def _heads(tokens: list[Token]) -> list[int]:
    """Places of the names that are defined: each is the last one before a colon, outside of brackets."""
    heads, last, depth = [], 0, 0
    for i, token in enumerate(tokens):
        depth += (token.text in _OPEN) - (token.text in _CLOSE)
        if depth == 0 and token.kind == "name":
            last = i
        elif depth == 0 and token.text == ":":
            heads.append(last)
    return heads


def _definition(tokens: list[Token]) -> Definition:
    """What stands between two names that are defined. Repetitions count for all of it."""
    one = Definition()
    depth, times = 0, 1.0
    for before, token in pairwise([Token("sign", ""), *tokens]):
        depth += (token.text in _OPEN) - (token.text in _CLOSE)
        one.levels = max(one.levels, 1 + depth + token.levels)
        one.length += token.length
        one.joins += token.text == "&"
        if token.kind == "name":
            one.references[_plain_name(token)] += 1
        elif token.kind == "number" and before.text != "=":  # those after a sign are options
            times *= max(1.0, float(int(token.text, 16)) if "x" in token.text.lower() else float(token.text))
    one.length *= times
    for name in one.references if times > 1 else ():
        one.references[name] = int(one.references[name] * min(times, 1e12))
    return one


def _plain_name(token: Token) -> str:
    return token.text.lstrip("!?")
