"""Tools of every kind become dictionaries, and every template its own spelling of calls."""

import re
from pathlib import Path
from typing import TypedDict

import pydantic.v1
import pytest
from langchain_core.tools import tool
from pydantic import BaseModel
from transformers import AddedToken

import langchain_eft
from langchain_eft.chat import tool_formats
from langchain_eft.chat.tool_formats import detect_tool_format, tool_instructions, visible_tokens
from langchain_eft.chat.tools import tool_dicts
from langchain_eft.engine.errors import RequestError
from unit_tests import tiny

SMOL = (Path(langchain_eft.__file__).parent / "presets/smol/chat_template.jinja").read_text()
LLAMA = '{% if tools %}Respond as {"name": function name, "parameters": {}}.{% endif %}'


def get_weather(city: str) -> str:
    """The weather in a city."""
    return city


class Weather(BaseModel):
    """The weather in a city."""

    city: str


class OldWeather(pydantic.v1.BaseModel):
    """The weather in a city."""

    city: str


class TypedWeather(TypedDict):
    """The weather in a city."""

    city: str


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    "given",
    [
        get_weather,
        tool(get_weather),
        Weather,
        OldWeather,
        TypedWeather,
        {"type": "function", "function": {"name": "w", "parameters": PARAMETERS}},
        {"name": "w", "parameters": PARAMETERS},
        {"name": "w", "input_schema": PARAMETERS, "cache_control": {"type": "ephemeral"}},
        {"title": "w", **PARAMETERS},
    ],
)
def test_every_kind_of_tool_is_read(given):
    (read,) = tool_dicts([given])
    assert read["type"] == "function"
    assert read["function"]["name"]
    assert read["function"]["parameters"]["properties"]["city"]["type"] == "string"
    assert read["function"]["parameters"]["required"] == ["city"]


class Tree(BaseModel):
    """A tree."""

    trees: list["Tree"]


def grow(tree: Tree) -> str:
    """Let a tree grow."""
    return ""


@pytest.mark.parametrize("given", [Tree, grow, tool(grow)])
def test_a_recursive_schema_keeps_its_definitions(given):
    parameters = tool_dicts([given])[0]["function"]["parameters"]
    assert parameters["$defs"]["Tree"]["properties"]["trees"]["items"] == {"$ref": "#/$defs/Tree"}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([{"type": "function", "function": {"description": "?"}}], "name=None"),
        ([{"name": " "}], "name=' '"),
        ([{"type": "web_search_preview"}], "'web_search_preview'"),
        ([{"type": "object"}], "cannot be read as a tool"),
        ([3], "holds 3"),
        ([{"name": "f", "parameters": {"type": "array"}}], "'f' are of type 'array'"),
        ([{"name": "f", "parameters": {"type": 5}}], "'f' are of type 5"),
        ([{"type": "function", "function": {"name": "f", "parameters": [5]}}], r"'f' has parameters=\[5\]"),
    ],
)
def test_what_is_no_tool_is_named(given, complaint):
    with pytest.raises(RequestError, match=complaint):
        tool_dicts(given)


@pytest.mark.parametrize(
    ("template", "name", "opens"),
    [
        (SMOL, "hermes", "<tool_call>"),
        ({"default": "{{ messages }}", "tool_use": SMOL}, "hermes", "<tool_call>"),
        (LLAMA, "llama", "<|python_tag|>"),
        ("{{ tools }}[TOOL_CALLS] [", "mistral", "[TOOL_CALLS]"),
        ("{{ tools }}[TOOL_CALLS]f[ARGS]", "mistral", "[TOOL_CALLS]"),
        (tiny.TEMPLATE, "prompted", "<tool_call>"),
        ("{{ tools }}<tool_call><function=f>", "prompted", "<tool_call>"),
        ("{{ message.tool_calls }}<tool_call>", "prompted", "<tool_call>"),
        (None, "prompted", "<tool_call>"),
    ],
)
def test_the_template_decides_the_format(template, name, opens):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    chosen = detect_tool_format(tokenizer)
    assert (chosen.name, chosen.opens) == (name, (opens,))
    assert opens in chosen.markers


def test_newer_mistral_templates_spell_the_name_outside():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{{ tools }}[TOOL_CALLS]f[ARGS]"
    assert detect_tool_format(tokenizer).render([("f", {"é": 1})]) == '[TOOL_CALLS]f[ARGS]{"é": 1}'
    tokenizer.chat_template = "{{ tools }}[TOOL_CALLS]"
    rendered = detect_tool_format(tokenizer).render([("f", {"a": 1}), ("g", {})])
    assert rendered == '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]'


def test_calls_are_spelled_as_the_smol_template_spells_them():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = SMOL
    calls = [("f", {"a": [1, "x"]}), ("g", {})]
    turn = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": name, "arguments": args}} for name, args in calls],
    }
    shown = tokenizer.apply_chat_template([turn], tokenize=False)
    assert f"assistant\n{detect_tool_format(tokenizer).render(calls)}<|im_end|>" in shown


@pytest.mark.parametrize("special", [True, False])
def test_tags_that_are_tokens_are_known_and_kept_visible(special):
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(
        [AddedToken("<tool_call>", special=special), AddedToken("</tool_call>", special=special)]
    )
    tokenizer.chat_template = SMOL
    chosen = detect_tool_format(tokenizer)
    ids = tuple(tokenizer.convert_tokens_to_ids(["<tool_call>", "</tool_call>"]))
    assert tuple(chosen.tokens.values()) == ids
    dropped = not tokenizer.decode(ids, skip_special_tokens=True)
    assert visible_tokens(tokenizer, chosen.markers) == frozenset(ids if dropped else ())
    assert dropped == special


def test_tags_that_are_text_need_no_tokens():
    tokenizer = tiny.tokenizer()
    chosen = detect_tool_format(tokenizer)
    assert dict(chosen.tokens) == {}
    assert visible_tokens(tokenizer, chosen.markers) == frozenset()


def test_the_prompted_format_tells_names_signatures_and_spelling():
    text = tool_instructions(tool_dicts([get_weather]), tool_formats.PROMPTED)
    assert re.search(r'<tools>\n\{"name": "get_weather".*"city".*\}\n</tools>', text)
    assert '<tool_call>\n{"name":' in text


@pytest.mark.parametrize(
    ("tool_format", "call"),
    [
        (tool_formats.HERMES, '<tool_call>\n{"name": "<name>", "arguments": {<arguments>}}\n</tool_call>'),
        (tool_formats.LLAMA, '{"name": "<name>", "parameters": {<arguments>}}'),
        (tool_formats.MISTRAL_NAMED, "[TOOL_CALLS]<name>[ARGS]{<arguments>}"),
    ],
)
def test_instructions_show_the_spelling_of_calls(tool_format, call):
    assert f"\n{call}\n" in tool_instructions(tool_dicts([get_weather]), tool_format)
