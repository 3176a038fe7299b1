"""A schema is enforced as a whole, or refused with the field that cannot be."""

import itertools
import json
import re
import time
import tracemalloc
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from langchain_eft.chat.grammars import calls_grammar, schema_grammar
from langchain_eft.chat.schemas import enforceable
from langchain_eft.chat.structured_output import response_format
from langchain_eft.chat.subschemas import is_recursive
from langchain_eft.chat.tools import tool_dicts
from langchain_eft.engine.errors import RequestError
from unit_tests.chat.test_grammars import says, setup


class Node(BaseModel):
    value: int
    children: list["Node"] = Field(default_factory=list, max_length=1)


class Leaf(BaseModel):
    kind: Literal["leaf"] = "leaf"
    value: int


class Branch(BaseModel):
    kind: Literal["branch"] = "branch"
    parts: list["Leaf | Branch"] = Field(max_length=2)
    main: "Leaf | Branch" = Field(discriminator="kind")


def described(*alternatives):
    return [{"properties": {name: {"type": kind}}, "required": [name]} for name, kind in alternatives]


LEAF = {"kind": "leaf", "value": 1}
ALTERNATIVES = described(("a", "integer"), ("b", "string"))
WHOLE = {
    "recursive": (Node, [{"value": 1, "children": [{"value": 2}]}], [{"value": 1, "children": ["x"]}]),
    "discriminated": (
        Branch,
        [{"kind": "branch", "parts": [LEAF], "main": {"kind": "branch", "parts": [], "main": LEAF}}],
        [{"kind": "branch", "parts": [], "main": {"value": 1}}],
    ),
    "oneOf": (
        {"title": "P", "oneOf": ALTERNATIVES},
        [{"a": 1}, {"b": "x"}],
        [{}, {"a": 1, "b": "x"}, {"a": "x"}],
    ),
    "anyOf": ({"title": "P", "anyOf": ALTERNATIVES}, [{"a": 1}, {"b": "x"}], [{}, {"a": "x"}]),
    "allOf": ({"title": "P", "allOf": ALTERNATIVES}, [{"a": 1, "b": "x"}], [{}, {"a": 1}]),
    "patternProperties": (
        {"title": "P", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
        [{}, {"xa": 1}],
        [{"ya": 1}, {"xa": "1"}],
    ),
    "named": ({"name": "P", "schema": {"type": "object", **ALTERNATIVES[0]}}, [{"a": 1}], [{}, {"a": "x"}]),
}


@pytest.mark.parametrize(("schema", "good", "bad"), WHOLE.values(), ids=WHOLE)
def test_no_part_is_lost_as_a_tool_nor_as_an_answer(schema, good, bad):
    _, form, compiler = setup("hermes", tagged=False)
    tools = tool_dicts([schema])
    name = tools[0]["function"]["name"]
    call = calls_grammar(form, tools, "any", parallel=False)
    answer = schema_grammar(response_format(schema)["json_schema"]["schema"])
    for value, valid in [*((value, True) for value in good), *((value, False) for value in bad)]:
        assert says(compiler, call, form.render([(name, value)])) == valid
        assert says(compiler, answer, json.dumps(value)) == valid


def test_a_list_of_numbers_is_an_answer_but_no_call():
    _, _, compiler = setup("hermes", tagged=False)
    schema = {"title": "P", "type": "array", "items": {"type": "integer"}}
    assert says(compiler, schema_grammar(schema), "[1, 2]")
    assert not says(compiler, schema_grammar(schema), '["x"]')
    with pytest.raises(RequestError, match=r"'P' are of type 'array'.*method='json_schema'"):
        tool_dicts([schema])


@pytest.mark.parametrize("pattern", [r"\d{3}", r"^\d", r"a$", r"^a|1$", r"(^a|b)1", r"[^a]b", r"a\$", ""])
def test_a_pattern_may_match_anywhere_in_the_text(pattern):
    _, _, compiler = setup("hermes", tagged=False)
    grammar = schema_grammar({"type": "string", "pattern": pattern})
    for length in range(4):
        for chars in itertools.product("ab1$", repeat=length):
            text = "".join(chars)
            assert says(compiler, grammar, json.dumps(text)) == bool(re.search(pattern, text))


def field(**keywords):
    return {"title": "P", "type": "object", "properties": {"n": keywords}, "required": ["n"]}


@pytest.mark.parametrize(
    ("keywords", "good", "bad"),
    [
        ({"type": "integer", "maximum": 2**63 - 1, "minimum": -(2**63)}, [0, 2**62, -(2**62)], [2**63]),
        ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, [0, 2**62], [-1, 2**64]),
        ({"type": "integer", "maximum": 10**30}, [0, -(10**40)], [10**31]),
        ({"enum": [2**53, 2**60]}, [2**53, 2**60], [2**53 + 1]),
        ({"pattern": r"^(?!^[-+.]*$)[+-]?\d*\.?\d*$"}, ["1", "-.5", "2."], ["", "-", ".", "x"]),
        ({"type": "string", "format": "password"}, ["", "x"], [1]),
        ({"type": "array", "uniqueItems": False}, [[], [1, 1]], [1]),
    ],
)
def test_what_the_compiler_words_otherwise_is_enforced(keywords, good, bad):
    _, _, compiler = setup("hermes", tagged=False)
    grammar = schema_grammar(field(**keywords))
    for value, valid in [*((value, True) for value in good), *((value, False) for value in bad)]:
        assert says(compiler, grammar, json.dumps({"n": value})) == valid


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"type": "integer", "minimum": 10**30}, str(10**30)),
        ({"type": "integer", "minimum": 2**53 + 1}, str(2**53 + 1)),
        ({"const": 10**400}, "0000"),
        ({"enum": [{"a": [2**63 + 1]}]}, str(2**63 + 1)),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "not": {"const": "x"}}, "not"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "foo"}, "foo"),
        ({"enum": []}, "anyOf is empty"),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2}, "min/maxProperties"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_its_field(keywords, reason):
    _, form, _ = setup("hermes", tagged=False)
    for name, schema in [("'n'", field(**keywords)), ("'list.n'", {})]:
        if name == "'list.n'":
            items = {"type": "array", "items": field(**keywords), "minItems": 1}
            schema = {"title": "P", "type": "object", "properties": {"list": items}, "required": ["list"]}
        with pytest.raises(RequestError, match=reason) as refused:
            schema_grammar(schema)
        assert f"The schema of 'P' cannot be enforced in its field {name}" in str(refused.value)
        with pytest.raises(RequestError, match=reason):
            calls_grammar(form, tool_dicts([schema]), "any", parallel=False)


@pytest.mark.parametrize("reference", ["http://nowhere.invalid/x", "#/$defs/nowhere", "#nowhere", "nowhere"])
def test_a_reference_that_leads_nowhere_is_refused(reference):
    with pytest.raises(RequestError, match=rf"schema of 'P'.*{re.escape(reference)}' leads nowhere"):
        schema_grammar(field(**{"$ref": reference}))


def tagged(number, **values):
    """An object that only its kind tells from others."""
    properties = {"kind": {"const": f"k{number}"}, "value": {"type": "string"}, **values}
    return {"type": "object", "properties": properties, "required": ["kind", "value"]}


@pytest.mark.slow
def test_a_thousand_alternatives_with_a_tag_exclude_each_other():
    """Comparing each with each other one takes some ten seconds."""
    _, _, compiler = setup("hermes", tagged=False)
    schema = {"title": "P", "$defs": {f"k{i}": tagged(i) for i in range(900)}}
    schema["oneOf"] = [{"$ref": f"#/$defs/k{i}"} for i in range(900)]
    began = time.process_time()
    grammar = schema_grammar(schema)
    assert time.process_time() - began < 5
    assert says(compiler, grammar, '{"kind": "k750", "value": "x"}')
    assert not says(compiler, grammar, '{"kind": "k900", "value": "x"}')


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        [{**tagged(i), "required": ["value"]} for i in range(900)],
        [tagged(i % 899) for i in range(900)],
        [
            {
                "type": "object",
                "properties": {f"p{j}": {"const": 1} for j in range(900)},
                "required": [f"p{i}"],
            }
            for i in range(40)
        ],
        [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
    ],
    ids=["no tag", "one tag twice", "many properties", "circles"],
)
def test_alternatives_that_take_long_to_compare_are_refused(choices):
    circles = {
        name: {
            "type": "object",
            "properties": {key: {"$ref": f"#/$defs/{name}"} for key in "pq"},
            "required": ["p", "q"],
        }
        for name in "ab"
    }
    began = time.process_time()
    with pytest.raises(RequestError, match="oneOf"):
        schema_grammar({"title": "P", "oneOf": choices, "$defs": circles})
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "keywords",
    [
        {"required": [["a"]]},
        {"required": 5},
        {"type": [["object"]]},
        {"type": 5},
        {"properties": 5},
        {"discriminator": {"propertyName": ["a"]}},
    ],
)
def test_alternatives_that_are_no_schemas_are_refused(keywords):
    union = {"discriminator": keywords.pop("discriminator", {"propertyName": "kind"})}
    with pytest.raises(RequestError, match="schema of 'P'"):
        schema_grammar({"title": "P", "oneOf": [tagged(0) | keywords, tagged(0)], **union})


def test_large_schemas_are_not_kept():
    def enforce(number, size):
        enforceable({"type": "object", "description": f"{number} {'x' * size}"}, f"n{'n' * size}")

    enforce(0, 100)
    tracemalloc.start()
    try:
        for number in range(10):
            enforce(number, 500_000)
        for number in range(300):
            enforce(number, 10_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5e6


def test_the_part_that_cannot_be_enforced_is_searched_for_so_long_only():
    definitions = {f"k{i}": tagged(i) for i in range(2000)}
    schema = {"title": "P", "$defs": {**definitions, "last": {"uniqueItems": True}}, "$ref": "#/$defs/last"}
    began = time.process_time()
    with pytest.raises(RequestError, match="uniqueItems"):
        schema_grammar(schema)
    assert time.process_time() - began < 20


def test_recursion_is_found_without_following_every_path():
    def doubling(last):
        pair = {"type": "array", "prefixItems": [{"$ref": "#/$defs/k"}, {"$ref": "#/$defs/k"}]}
        text = {f"k{i}": json.loads(json.dumps(pair).replace("/k", f"/k{i + 1}")) for i in range(60)}
        return {"$ref": "#/$defs/k0", "$defs": {**text, "k60": last}}

    assert not is_recursive(doubling({"type": "string"}))
    assert is_recursive(doubling({"$ref": "#/$defs/k30"}))


def test_the_part_that_is_refused_is_the_smallest_one():
    schema = field(anyOf=[{"type": "integer"}, {"type": "string", "pattern": "(?=a)b"}])
    with pytest.raises(RequestError, match=re.escape("{'type': 'string', 'pattern': '(?=a)b'}")):
        enforceable(schema, "P")
