"""Answers read by a tokenizer's own response template, for spellings that no parser of ours knows."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langchain_eft.chat.output_parser import Content, OutputParser, Reasoning, ToolCallPart
from langchain_eft.chat.response_template import ResponseTemplateParser
from unit_tests import tiny
from unit_tests.chat.prepared import prepared

XML = {  # Qwen 3.5's spelling, as transformers describes it
    "start_anchor": "<assistant> ",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
            "close_pattern": r"</function>\s*</tool_call>",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"},
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"content": "text"},
    },
}
JSON = {
    "start_anchor": "<assistant> ",
    "fields": {
        "thinking": {"open": "<|channel>", "close": "<channel|>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"call:(?P<name>\w+)",
            "close": ";",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"content": "text"},
    },
}
BARE = {
    "start_anchor": "<assistant> ",
    "fields": {
        "tool_calls": {
            "open_pattern": r'\{"name": "(?P<name>\w+)", "n": ',
            "close_pattern": r"\};",
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"content": "text"},
    },
}
TEMPLATE = "{% for tool in tools or [] %}[{{ tool['function']['name'] }}]{% endfor %}" + tiny.TEMPLATE
TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"properties": {"n": {"type": "integer"}}}}}
]
CALL = "<tool_call>\n<function=f>\n<parameter=n>\n3\n</parameter>\n</function>\n</tool_call>"


def carrying(template):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.response_template = template
    return tokenizer


def read(template, text, parts=None, prompt="<assistant> ", tools=TOOLS):
    """The answer as short tuples: text by kind, calls as name and arguments."""
    parser = ResponseTemplateParser(carrying(template), prompt, tools)
    completed = [delta for part in parts or [text] for delta in parser.feed(part)] + parser.flush()
    summary: list[list[str]] = []
    for delta in completed:
        if isinstance(delta, ToolCallPart) and delta.id:
            summary.append(["call", delta.name, ""])
        elif isinstance(delta, ToolCallPart):
            summary[-1][2] += delta.args
        elif summary and summary[-1][0] == type(delta).__name__:
            summary[-1][1] += delta.text
        else:
            summary.append([type(delta).__name__, delta.text])
    return [tuple(piece) for piece in summary]


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        (XML, "Hello  there.\n", [("Content", "Hello  there.")]),
        (
            XML,
            f"<think>\nhm, 日本\n</think>\n\nSo: {CALL}{CALL}",
            [
                ("Reasoning", "hm, 日本"),
                ("Content", "So:"),
                ("call", "f", '{"n": 3}'),
                ("call", "f", '{"n": 3}'),
            ],
        ),
        (JSON, '<|channel>a<channel|>call:f{"n": 3};', [("Reasoning", "a"), ("call", "f", '{"n": 3}')]),
        (JSON, "call:f{oops;", [("call", "", "call:f{oops;")]),
        (JSON, 'call:f{"n": 1};call:f{oops', [("call", "f", '{"n": 1}'), ("call", "", "call:f{oops")]),
    ],
)
def test_answers_are_read_by_the_template(template, text, expected):
    assert read(template, text) == expected


@pytest.mark.parametrize(
    ("template", "text"), [(XML, CALL), (JSON, 'call:f{"n": 3};'), (BARE, '{"name": "f", "n": {"a": 3}};')]
)
def test_a_call_that_is_cut_is_never_complete(template, text):
    for end in range(1, len(text)):
        parser = ResponseTemplateParser(carrying(template), "<assistant> ", TOOLS)
        parts = [*parser.feed(text[:end]), *parser.flush(cut=True)]
        calls = [part for part in parts if isinstance(part, ToolCallPart)]
        assert {call.name for call in calls} <= {"", None}
        args = "".join(call.args for call in calls)
        chunks = [tool_call_chunk(name="", args=args, id="1", index=0)] if calls else []
        assert AIMessageChunk(content="", tool_call_chunks=chunks).tool_calls == []


def test_the_prompt_may_have_begun_the_reasoning():
    assert read(XML, "hm</think>hi", prompt="<assistant> <think>\n") == [
        ("Reasoning", "hm"),
        ("Content", "hi"),
    ]


def test_without_tools_calls_stay_text():
    assert all(kind == "Content" for kind, *_ in read(XML, f"So: {CALL}", tools=[]))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_where_an_answer_is_cut_does_not_matter(data):
    pieces = ["hi ", "\n", "<think>", "</think>", CALL, "<tool_", "日本", "<tool_call><function=g>"]
    text = "".join(data.draw(st.lists(st.sampled_from(pieces), max_size=8)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    parts = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    assert read(XML, text, parts) == read(XML, text)


def test_free_answers_are_native_and_enforced_ones_prompted():
    free = prepared(carrying(XML), tools=TOOLS)
    assert carrying(XML).decode(free.only_request.prompt_ids).startswith("[f]")
    assert isinstance(free.new_parser(), ResponseTemplateParser)
    assert free.only_request.grammar is None
    forced = prepared(carrying(XML), tools=TOOLS, tool_choice="any")
    assert "# Tools" in carrying(XML).decode(forced.only_request.prompt_ids)
    assert isinstance(forced.new_parser(), OutputParser)
    assert forced.only_request.grammar is not None


def test_spellings_that_we_stream_ourselves_are_ours():
    tokenizer = carrying(XML)
    tokenizer.chat_template = "{{ tools }}<tool_call>" + tiny.TEMPLATE
    call = prepared(tokenizer, tools=TOOLS)
    parser = call.new_parser()
    deltas = [*parser.feed(f"<tool_call>{json.dumps({'name': 'f', 'arguments': {'n': 3}})}"), *parser.flush()]
    assert [type(delta) for delta in deltas] == [ToolCallPart, ToolCallPart]
    assert isinstance(parser, OutputParser)


def test_special_tokens_of_the_template_stay_visible():
    tokenizer = carrying(JSON)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel>", "<|other|>"]})
    call = prepared(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<|channel>") in call.only_request.visible_tokens
    assert tokenizer.convert_tokens_to_ids("<|other|>") not in call.only_request.visible_tokens


def test_content_and_reasoning_are_deltas_as_they_come():
    parser = ResponseTemplateParser(carrying(XML), "<assistant> ", [])
    assert parser.feed("<think>a b") == [Reasoning("a"), Reasoning(" b")]
    assert parser.feed("</think>c") == [Content("c")]
