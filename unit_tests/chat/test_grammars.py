"""Whatever a model says under a grammar is a call, or an object, that its schema admits."""

import json
import random
import tracemalloc
from functools import lru_cache
from typing import Literal, TypedDict

import llguidance
import llguidance.hf
import pydantic.v1
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from transformers import AddedToken

from langchain_eft.chat.grammars import (
    calls_grammar,
    compiles,
    held_grammar,
    normalize_choice,
    schema_grammar,
    strict_grammar,
    union_grammar,
)
from langchain_eft.chat.output_parser import OutputParser, ToolCallPart
from langchain_eft.chat.schemas import arguments_schema, enforceable, schema_dict, schema_name
from langchain_eft.chat.structured_output import response_format, schema_instruction
from langchain_eft.chat.tool_formats import detect_tool_format
from langchain_eft.chat.tools import tool_dicts
from langchain_eft.engine.errors import RequestError
from unit_tests import tiny

TEMPLATES = {
    "hermes": "{{ tools }}<tool_call>",
    "llama": '{{ tools }}{"name": function name, "parameters": {}}',
    "mistral": "{{ tools }}[TOOL_CALLS]",
    "named": "{{ tools }}[TOOL_CALLS][ARGS]",
    "prompted": tiny.TEMPLATE,
}
TAGS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>"]


class Node(BaseModel):
    model_config = ConfigDict(extra="forbid")
    value: int = Field(gt=0, lt=10)
    next: "Node | None" = None


class Book(BaseModel):
    """Book a table."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=4)
    kind: Literal["a", "日本", 'q"']
    nodes: list[Node] = Field(max_length=2)
    ratio: float = Field(ge=0, le=1)
    note: str | None = Field(default=None, max_length=3)


class Nothing(BaseModel):
    """Do nothing."""

    model_config = ConfigDict(extra="forbid")


class Booking(BaseModel):
    """Take a booking."""

    model_config = ConfigDict(extra="forbid")
    paid: bool


MODELS = {model.__name__: model for model in (Book, Nothing, Booking)}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": model.model_json_schema()}}
    for name, model in MODELS.items()
]


@lru_cache
def setup(name, tagged):
    """A tokenizer, the format of its template, and the grammar compiler's view of it."""
    tokenizer = tiny.tokenizer()
    if tagged:
        tokenizer.add_tokens([AddedToken(tag, special=True) for tag in TAGS], special_tokens=True)
    tokenizer.chat_template = TEMPLATES[name]
    return (
        tokenizer,
        detect_tool_format(tokenizer),
        llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer) + 3),
    )


def matcher(compiler, grammar):
    matcher = llguidance.LLMatcher(compiler, llguidance.grammar_from("lark", grammar), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def allowed(found, compiler):
    mask = found.compute_bitmask()
    return [i for i in range(compiler.vocab_size) if mask[i // 8] >> (i % 8) & 1]


def walk(tokenizer, compiler, grammar, seed):
    """What a model with random tastes says under the grammar, up to its end token."""
    chance, state, ids = random.Random(seed), matcher(compiler, grammar), []
    end = tokenizer.eos_token_id
    closing = {tokenizer.convert_tokens_to_ids(char) for char in '"}]'} | {end}
    while True:
        choices = allowed(state, compiler)
        near = [i for i in choices if i in closing]
        token = chance.choice(near if near and chance.random() < 0.5 else choices)
        if token == end:
            assert state.is_accepting()
            return tokenizer.decode(ids)
        assert state.consume_token(token)
        ids.append(token)


def says(compiler, grammar, text):
    """Whether the grammar admits this text as a whole answer."""
    state = matcher(compiler, grammar)
    ids = compiler.tokenize_str(text, parse_special=True)
    return state.try_consume_tokens(ids) == len(ids) and state.is_accepting()


def parsed(form, text, **options):
    parser = OutputParser(form, tools=True, reasoning=False, **options)
    parts = [*parser.feed(text), *parser.flush()]
    calls = [[delta.name, ""] for delta in parts if isinstance(delta, ToolCallPart) and delta.id]
    for delta in parts:
        if isinstance(delta, ToolCallPart):
            calls[delta.index][1] += delta.args
    return calls, "".join(delta.text for delta in parts if not isinstance(delta, ToolCallPart))


every_format = pytest.mark.parametrize("name", TEMPLATES)
tagged_or_not = pytest.mark.parametrize("tagged", [False, True], ids=["text", "tokens"])


@pytest.mark.slow
@every_format
@tagged_or_not
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), parallel=st.booleans(), choice=st.sampled_from(["any", "Book"]))
def test_a_forced_call_is_always_a_valid_call(name, tagged, seed, parallel, choice):
    tokenizer, form, compiler = setup(name, tagged)
    grammar = calls_grammar(form, TOOLS, choice, parallel=parallel)
    calls, text = parsed(form, walk(tokenizer, compiler, grammar, seed))
    assert text == ""
    assert len(calls) >= 1 if parallel and choice == "any" else len(calls) == 1
    for called, args in calls:
        assert choice in ("any", called)
        MODELS[called].model_validate_json(args, strict=True)


@every_format
@tagged_or_not
def test_a_call_is_spelled_as_the_format_renders_it(name, tagged):
    _, form, compiler = setup(name, tagged)
    full = {"name": 'é"', "kind": "日本", "nodes": [{"value": 9, "next": {"value": 1}}], "ratio": 0.5}
    one, other = form.render([("Book", full)]), form.render([("Nothing", {})])
    both = form.render([("Booking", {"paid": True}), ("Nothing", {})])
    single, several = (calls_grammar(form, TOOLS, "any", parallel=p) for p in (False, True))
    assert says(compiler, single, one)
    assert says(compiler, single, other)
    assert not says(compiler, single, both)
    assert says(compiler, several, both)
    assert not says(compiler, single, "Sure.")
    named = calls_grammar(form, TOOLS, "Nothing", parallel=True)
    assert says(compiler, named, other)
    assert not says(compiler, named, one)
    for wrong in ({"paid": 1}, {}, {"paid": True, "more": 1}):
        assert not says(compiler, single, form.render([("Booking", wrong)]))


@every_format
def test_after_a_whole_call_only_the_end_may_follow(name):
    tokenizer, form, compiler = setup(name, tagged=False)
    state = matcher(compiler, calls_grammar(form, TOOLS, "Nothing", parallel=False))
    assert state.consume_tokens(compiler.tokenize_str(form.render([("Nothing", {})])))
    assert (state.is_accepting(), state.is_stopped(), state.is_error()) == (True, True, False)
    assert allowed(state, compiler) == [tokenizer.eos_token_id]


@every_format
@tagged_or_not
def test_strict_leaves_text_free_and_holds_calls_to_their_schema(name, tagged):
    _, form, compiler = setup(name, tagged)
    single, several = (strict_grammar(form, TOOLS, parallel=p) for p in (False, True))
    good = form.render([("Booking", {"paid": True})])
    both = form.render([("Booking", {"paid": True}), ("Nothing", {})])
    bad = form.render([("Booking", {"paid": "yes"})])
    for grammar in (single, several):
        assert says(compiler, grammar, "Hello <b> [1] {2} 日本\n")
        assert says(compiler, grammar, good)
        assert not says(compiler, grammar, bad)
        assert not says(compiler, grammar, good[:-1])
        if form.untagged:
            assert says(compiler, grammar, f"So: <|python_tag|>{good}")
        else:
            assert says(compiler, grammar, f"Let me see.\n{good}")
            assert not says(compiler, grammar, f"Let me see.\n{bad}")
    assert says(compiler, several, both)
    assert not says(compiler, single, both)


def test_long_grammars_are_not_kept():
    assert compiles('start: "x"')
    tracemalloc.start()
    try:
        assert all(compiles(f'start: "{number} {"x" * 500_000}"') for number in range(10))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1e6


@tagged_or_not
def test_without_tags_the_name_of_a_tool_begins_a_call_that_is_held(tagged):
    _, form, compiler = setup("llama", tagged)
    grammar = held_grammar(form, TOOLS)
    assert compiles(grammar)
    good = form.render([("Booking", {"paid": True})])
    both = form.render([("Booking", {"paid": True}), ("Nothing", {})])
    bad = form.render([("Booking", {"paid": "yes"})])
    for text in (
        good,
        both,
        f"\n{good}",
        "Hello {n} [2]\n",
        '{"name": "Eva", "age": 3}',
        f"So: <|python_tag|>{good}",
    ):
        assert says(compiler, grammar, text)
    for text in (bad, f"\n{bad}", both.replace("true", '"x"'), f"{good} and"):
        assert not says(compiler, grammar, text)
    assert says(compiler, grammar, f"So: <|python_tag|>{bad}") != tagged


@every_format
@tagged_or_not
def test_union_admits_calls_and_objects(name, tagged):
    _, form, compiler = setup(name, tagged)
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "n": {"$ref": "#/$defs/N"}},
        "required": ["name"],
        "$defs": {"N": {"type": "integer"}},
    }
    for parallel in (False, True):
        grammar = union_grammar(form, TOOLS, schema, parallel=parallel)
        assert says(compiler, grammar, '{"name": "Book", "n": 3}')
        assert says(compiler, grammar, '{"name": "x"}')
        assert says(compiler, grammar, form.render([("Booking", {"paid": True})]))
        assert not says(compiler, grammar, form.render([("Booking", {"paid": 3})]))
        assert not says(compiler, grammar, '{"n": 3}')
        assert not says(compiler, grammar, "text")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_answer_under_a_schema_is_always_an_instance(seed):
    tokenizer, _, compiler = setup("hermes", tagged=False)
    for model in (Book, Node):
        model.model_validate_json(
            walk(tokenizer, compiler, schema_grammar(model.model_json_schema()), seed), strict=True
        )


def test_json_comes_spaced_and_unescaped():
    _, _, compiler = setup("hermes", tagged=False)
    assert says(compiler, schema_grammar({"type": "object"}), '{"a": [1, {"b": "é\\n"}], "c": {}}')
    for other in ('{"a":1}', '{"a": "\\u00e9"}', "[1]", '{\n"a": 1}', "hi"):
        assert not says(compiler, schema_grammar({"type": "object"}), other)


@pytest.mark.parametrize(
    ("parameters", "good", "bad"),
    [
        ({}, {}, {"a": 1}),
        ({"type": "object"}, {}, {"a": 1}),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}, {"b": 1}),
        ({"properties": {"a": {"type": "object"}}}, {"a": {"x": 1}}, {"a": 1}),
        ({"additionalProperties": {"type": "integer"}}, {"x": 1}, {"x": "y"}),
        ({"properties": {"a": {"properties": {"b": {}}}}}, {"a": {"b": 1}}, {"a": {"c": 1}}),
        ({"properties": {"a": {"exclusiveMinimum": 1, "type": "integer"}}}, {"a": 2}, {"a": 1}),
        ({"properties": {"$ref": {"type": "string"}}}, {"$ref": "#"}, {"$ref": 1}),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"a": 1, "b": 1}, []),
        ({"$ref": "#/definitions/T", "definitions": {"T": {"properties": {"a": {}}}}}, {"a": 1}, {"b": 1}),
        ({"properties": {"a": {"$ref": "#"}}}, {"a": {"a": {}}}, {"a": {"b": 1}}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x"}, {}, {"a": 1}),
    ],
)  # fmt: skip
def test_arguments_are_what_the_parameters_describe(parameters, good, bad):
    _, form, compiler = setup("hermes", tagged=False)
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}, TOOLS[1]]
    grammar = calls_grammar(form, tools, "any", parallel=False)
    assert says(compiler, grammar, form.render([("f", good)]))
    assert not says(compiler, grammar, form.render([("f", bad)]))


@pytest.mark.parametrize("part", [{"$ref": "http://nowhere.invalid/x"}, {"type": "foo"}, {"enum": []}])
def test_a_schema_that_cannot_be_enforced_at_all_is_named(part):
    with pytest.raises(RequestError, match="'mine'"):
        arguments_schema({"properties": {"a": part}, "required": ["a"]}, "mine")


def test_a_schema_that_is_no_json_is_named():
    with pytest.raises(RequestError, match="'mine' is not JSON"):
        enforceable({"const": object()}, "mine")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "auto"), (False, "auto"), (True, "any"), ("auto", "auto"), ("none", "none"), ("any", "any"),
        ("required", "any"), ("Book", "Book"), ({"type": "function", "function": {"name": "Book"}}, "Book"),
        ({"type": "tool", "name": "Book"}, "Book"), ({"name": "Book"}, "Book"), ({"type": "any"}, "any"),
        ({"type": "auto"}, "auto"), ({"type": "none"}, "none"),
    ],
)  # fmt: skip
def test_every_spelling_of_a_choice_is_read(given, expected):
    assert normalize_choice(given, TOOLS) == expected


@pytest.mark.parametrize("given", ["Bok", {"name": "Bok"}, {"type": "tool"}, 3, ["Book"]])
def test_an_unknown_choice_is_refused_with_the_known_ones(given):
    with pytest.raises(RequestError, match="'Book', 'Nothing', 'Booking'"):
        normalize_choice(given, TOOLS)


@pytest.mark.parametrize("given", ["any", True, "Book"])
def test_no_call_can_be_forced_without_tools(given):
    with pytest.raises(RequestError, match="bind tools first"):
        normalize_choice(given, [])


class OldJoke(pydantic.v1.BaseModel):
    setup: str


class TypedJoke(TypedDict):
    """A joke."""

    setup: str


class Joke(BaseModel):
    setup: str


PLAIN = {
    "title": "Joke",
    "type": "object",
    "properties": {"setup": {"type": "string"}},
    "required": ["setup"],
}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (Joke, "Joke"),
        (OldJoke, "OldJoke"),
        (TypedJoke, "TypedJoke"),
        (PLAIN, "Joke"),
        ({"name": "joke", "schema": PLAIN}, "joke"),
        ({"name": "joke", "parameters": PLAIN}, "joke"),
        ({"type": "function", "function": {"name": "joke", "parameters": PLAIN}}, "joke"),
        ({"type": "json_schema", "json_schema": {"name": "joke", "schema": PLAIN, "strict": True}}, "joke"),
        ({k: v for k, v in PLAIN.items() if k != "title"}, "answer"),
    ],
)
def test_every_shape_of_schema_is_read(given, name):
    assert schema_name(given) == name
    plain = schema_dict(given)
    assert plain["properties"]["setup"]["type"] == "string"
    assert plain["required"] == ["setup"]
    assert response_format(given) == {"type": "json_schema", "json_schema": {"name": name, "schema": plain}}
    assert response_format(response_format(given)) == response_format(given)
    assert json.dumps(plain) in schema_instruction(plain)


def test_json_mode_has_no_schema():
    assert response_format({"type": "json_object"}) == {"type": "json_object"}


@pytest.mark.parametrize("given", [{}, {"foo": 1}, 3, {"type": "json_object"}])
def test_what_is_no_schema_is_named(given):
    with pytest.raises(RequestError, match=f"schema={given}"):
        schema_dict(given)


def test_schemas_of_bound_tools_are_taken_as_they_come():
    def magic(input: int) -> int:  # noqa: A002
        """Magic."""
        return input

    _, form, compiler = setup("hermes", tagged=False)
    grammar = calls_grammar(form, tool_dicts([magic]), "any", parallel=False)
    assert says(compiler, grammar, '<tool_call>\n{"name": "magic", "arguments": {"input": 3}}\n</tool_call>')
    assert not says(compiler, grammar, form.render([("magic", {"input": "3"})]))
