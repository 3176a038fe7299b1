"""Every answer is read the same however it is cut, and nothing of it is lost."""

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langchain_eft.chat.output_parser import Content, OutputParser, Reasoning, ToolCallPart
from langchain_eft.chat.tool_formats import HERMES, LLAMA, MISTRAL, MISTRAL_NAMED, PROMPTED
from unit_tests.helpers import FUZZ

FORMATS = {
    "hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "named": MISTRAL_NAMED, "prompted": PROMPTED,
}  # fmt: skip
WORDS = ["alpha", "große", "日本"]
PIECES = [
    *WORDS, " ", "\n", "<", "[", "{", "}", "]", ", ", '"', "\\", "1", "<think>", "</think>", "<tool_call>",
    "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", '{"name": "f", "arguments": ', '{"name": "g"',
    '{"a": [1, "x\\"y}', '{"parameters": {}, "name": "f"}', '{"city": "Rome"}', "</tool_", "f[ARGS]{}",
]  # fmt: skip

ANY = st.text(max_size=8) | st.integers() | st.none() | st.booleans()


def deltas(parser, parts):
    completed = [delta for part in parts for delta in parser.feed(part)]
    return completed + parser.flush()


def read(text, form=HERMES, parts=None, **options):
    """The answer as short tuples: text by kind, calls as name and arguments."""
    parser = OutputParser(form, **{"tools": True, "reasoning": True, **options})
    summary = []
    for delta in deltas(parser, parts or [text]):
        match delta:
            case Content(text):
                piece = ["text", text]
            case Reasoning(text):
                piece = ["thought", text]
            case ToolCallPart(_, None, None, args):
                summary[-1][2] += args
                continue
            case ToolCallPart(index, _, name, ""):
                piece = ["call", name, "", index]
        if summary and piece[0] == summary[-1][0] != "call":
            summary[-1][1] += piece[1]
        else:
            summary.append(piece)
    return [tuple(piece[:3]) for piece in summary]


def call(name, args):
    return ("call", name, args)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@settings(max_examples=40 * FUZZ, deadline=None)
@given(data=st.data())
def test_where_an_answer_is_cut_does_not_matter(form, data):
    text = "".join(data.draw(st.lists(st.sampled_from(PIECES), max_size=20)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    parts = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    options = {name: data.draw(st.booleans()) for name in ("tools", "reasoning", "forced", "thinking")}
    assert read(text, form, parts, **options) == read(text, form, list(text), **options)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@settings(max_examples=40 * FUZZ, deadline=None)
@given(data=st.data())
def test_no_word_is_lost(form, data):
    unquoted = [piece for piece in PIECES if piece not in ('"', "\\", '{"a": [1, "x\\"y}')]
    text = "".join(data.draw(st.lists(st.sampled_from(unquoted), max_size=20)))
    read_text = " ".join(part for piece in read(text, form) for part in piece[1:])
    for word in WORDS:
        assert read_text.count(word) == text.count(word)


@settings(max_examples=40 * FUZZ, deadline=None)
@given(text=st.text(alphabet=st.sampled_from('ab <>{}[]"\n\t/:,|_tolcahink'), max_size=60))
def test_an_answer_without_tags_is_unchanged(text):
    if not re.search(r"<think>|<tool_call>", text):
        assert read(text) == ([("text", text)] if text else [])


@settings(max_examples=30, deadline=None)
@given(args=st.dictionaries(st.text(max_size=5), ANY | st.lists(ANY, max_size=2), max_size=3))
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_what_a_format_renders_is_read_back(form, args):
    calls = [("first", {}), ("second", args)]
    summary = read(f"Let me see.\n{form.render(calls)}" if not form.untagged else form.render(calls), form)
    if not form.untagged:
        assert summary.pop(0) == ("text", "Let me see.")
    assert [(name, json.loads(args)) for _, name, args in summary] == calls


def test_name_comes_first_and_arguments_as_they_arrive():
    parser = OutputParser(HERMES, tools=True, reasoning=False)
    (first,) = parser.feed('Hm. <tool_call>\n{"name": "f",')[1:]
    assert (first.index, first.name, first.args) == (0, "f", "")
    assert re.fullmatch(r"call_[0-9a-f]{24}", first.id)
    assert parser.feed(' "arguments": {"a') == [ToolCallPart(0, None, None, '{"a')]
    assert parser.feed('": "日') == [ToolCallPart(0, None, None, '": "日')]
    assert parser.feed('"}}\n</tool_call>\n') == [ToolCallPart(0, None, None, '"}')]
    assert parser.flush() == []


def test_ids_differ():
    parser = OutputParser(HERMES, tools=True, reasoning=False)
    parts = deltas(parser, ['<tool_call>{"name": "f"}</tool_call>' * 3])
    assert [delta.index for delta in parts] == [0, 1, 2]
    assert len({delta.id for delta in parts}) == 3


def test_nothing_that_may_become_a_tag_is_shown():
    parser = OutputParser(HERMES, tools=True, reasoning=True)
    assert parser.feed("a \n<tool") == [Content("a")]
    assert parser.feed("box>") == [Content(" \n<toolbox>")]


CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"A.\n{CALL}\n{CALL}\nB.",
            [("text", "A."), call("f", '{"a": 1}'), call("f", '{"a": 1}'), ("text", "B.")],
        ),
        (f"<think>\nhm {CALL}\n</think>\n\nhi", [("thought", f"hm {CALL}"), ("text", "hi")]),
        ("<think>\n\n</think>\n\nhi", [("text", "hi")]),
        ("<think>never done ", [("thought", "never done")]),
        ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', [call("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', [call("f", '{"a": 1}')]),
        (
            '<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}',
            [call("f", '{"a": "</tool_call>"}')],
        ),
        ('<tool_call>{"name": "f"}</tool_call>', [call("f", "")]),
        ('<tool_call>{"name": "f", "arguments": null}</tool_call>', [call("f", "")]),
        ('<tool_call>{"name": "f", "a": 1}</tool_call>', [call("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f", "arguments": {}, "x": 1}</tool_call>', [call("f", "{}")]),
        ('<tool_call>{"function": {"name": "f", "arguments": {}}}</tool_call>', [call("f", "{}")]),
        (
            '<tool_call>[{"name": "f"}, {"name": "g"}]</tool_call>!',
            [call("f", ""), call("g", ""), ("text", "!")],
        ),
        ('<tool_call>{"name": "f", "arguments": {}}}</tool_call>!', [call("f", "{}"), ("text", "!")]),
        ('<tool_call>{"name": "f", "arguments": {}</tool_call>!', [call("f", "{}"), ("text", "!")]),
        ('{"name": "f", "arguments": {}}', [("text", '{"name": "f", "arguments": {}}')]),
        ("a</tool_call>b", [("text", "a</tool_call>b")]),
    ],
)
def test_hermes(text, expected):
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
            [call("f", '{"a": 1}'), call("g", "{}")],
        ),
        ('{"type": "function", "name": "f", "parameters": {}}', [call("f", "{}")]),
        ('\n<|python_tag|>{"name": "f", "parameters": {}}', [call("f", "{}")]),
        ("<|python_tag|>print(1)", [call("", "<|python_tag|>print(1)")]),
        (' {"name": "Bob", "age": 3}\n', [("text", ' {"name": "Bob", "age": 3}\n')]),
        ('{"name": "Bob"}', [("text", '{"name": "Bob"}')]),
        ('Say {"name": "f", "parameters": {}}', [("text", 'Say {"name": "f", "parameters": {}}')]),
        ('<think>so</think>{"name": "f", "parameters": {}}', [("thought", "so"), call("f", "{}")]),
    ],
)  # fmt: skip
def test_llama(text, expected):
    assert read(text, LLAMA) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[TOOL_CALLS] [{"name": "f", "arguments": {}, "id": "123456789"}]', [call("f", "{}")]),
        (
            'ok[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g{}',
            [("text", "ok"), call("f", '{"a": 1}'), call("g", "{}")],
        ),
        ("[TOOL_CALLS]f[CALL_ID]123456789[ARGS]{}", [call("f", "{}")]),
        ("[TOOL_CALLS]two words{}", [call("", "[TOOL_CALLS]two words{}")]),
    ],
)
def test_mistral(text, expected):
    assert read(text, MISTRAL) == expected


@pytest.mark.parametrize(
    ("text", "name", "args"),
    [
        ("<tool_call>f(x)</tool_call>", "", "<tool_call>f(x)</tool_call>"),
        ('<tool_call>{"city": "Rome"}</tool_call>', "", '<tool_call>{"city": "Rome"}</tool_call>'),
        ('<tool_call>{"name": "", "arguments": {}}', "", '<tool_call>{"name": "", "arguments": {}}'),
        ('<tool_call>{"name": "ro', "", '<tool_call>{"name": "ro'),
        ('<tool_call>{"name": "f", "arguments": {\'a\': 1}}</tool_call>', "f", "{'a': 1}}"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1]}}</tool_call>', "f", '{"a": 1]}}'),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "f", "[1]"),
        ('<tool_call>{"name": "f", oops</tool_call>', "f", ", oops"),
    ],
)
def test_what_cannot_be_read_becomes_an_invalid_call_with_its_text(text, name, args):
    assert read(text) == [call(name, args)]
    chunks = [tool_call_chunk(name=name, args=args, id="1", index=0)]
    message = AIMessageChunk(content="", tool_call_chunks=chunks)
    assert [(bad["name"], bad["args"]) for bad in message.invalid_tool_calls] == [(name, args)]
    assert message.tool_calls == []


def test_what_is_not_asked_for_is_text():
    assert read(f"<think>a</think>{CALL}", tools=False, reasoning=False) == [
        ("text", f"<think>a</think>{CALL}")
    ]


def test_a_forced_call_needs_no_tag():
    assert read('{"name": "f"}', forced=True) == [call("f", "")]
    assert read('{"x": "f"}', forced=True) == [("text", '{"x": "f"}')]


def test_reasoning_may_begin_in_the_prompt():
    assert read("hm\n</think>\nhi", thinking=True) == [("thought", "hm"), ("text", "hi")]
