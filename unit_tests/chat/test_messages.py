"""Any history renders, with any template."""

from pathlib import Path

import pytest
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

import langchain_eft
from langchain_eft.chat.messages import encode, merge, to_turn
from langchain_eft.chat.tool_formats import MISTRAL_NAMED
from langchain_eft.chat.tools import tool_dicts
from langchain_eft.engine.errors import RequestError
from unit_tests import tiny

SMOL = (Path(langchain_eft.__file__).parent / "presets/smol/chat_template.jinja").read_text()
LOOP = "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + '\\n' }}{% endfor %}"
ALTERNATING = (
    "{% for m in messages %}"
    "{% if m['role'] not in ('user', 'assistant') %}{{ raise_exception('no ' + m['role']) }}"
    "{% elif (m['role'] == 'user') != loop.index0 is even %}{{ raise_exception('must alternate') }}"
    "{% endif %}{% endfor %}" + LOOP
)
EARLY_SYSTEM = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' and loop.index0 %}{{ raise_exception('system late') }}{% endif %}"
    "{% endfor %}" + LOOP
)
SINGLE_CALLS = (
    "{{ tools }}{% for m in messages %}{% if m['tool_calls'] %}{% if m['tool_calls'] | length != 1 %}"
    "{{ raise_exception('single tool-calls only') }}{% endif %}"
    "call {{ m['tool_calls'][0]['function']['name'] }}\n"
    "{% else %}{{ m['role'] + ' ' + m['content'] + '\n' }}{% endif %}{% endfor %}"
    '{"name": function name, "parameters": {}}'
)
MISTRAL = (
    "{{ tools | length }}{% for m in messages %}"
    "{% for c in m['tool_calls'] or [] %}{% if c['id'] | length != 9 %}"
    "{{ raise_exception('ids of length 9') }}{% endif %}[TOOL_CALLS]{{ c['id'] }}{% endfor %}"
    "{% if m['role'] == 'tool' %} result {{ m['tool_call_id'] }}{% endif %}{% endfor %}"
)
CALLS = [{"name": "add", "args": {"a": 1}, "id": "7"}, {"name": "sub", "args": {}, "id": "8"}]


def turns(*messages):
    return merge([to_turn(message) for message in messages])


def shown(template, *messages, tools=None, answer=False):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return tokenizer.decode(encode(tokenizer, messages, tools=tools, answer=answer))


def add(a: int) -> int:
    """Add one."""
    return a


def test_roles_have_the_templates_names():
    history = [SystemMessage("s"), HumanMessage("h"), AIMessage("a"), ChatMessage("c", role="critic")]
    assert [turn["role"] for turn in turns(*history)] == ["system", "user", "assistant", "critic"]


def test_runs_of_one_role_are_merged():
    merged = turns(
        SystemMessage("a"), SystemMessage("b"), HumanMessage("c"), HumanMessage("d"), AIMessage("e")
    )
    assert merged == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "c\n\nd"},
        {"role": "assistant", "content": "e"},
    ]


def test_names_are_kept_and_hold_runs_apart():
    merged = turns(
        HumanMessage("a", name="Eva"), HumanMessage("b", name="Eva"), HumanMessage("c", name="Ben")
    )
    assert merged == [
        {"role": "user", "content": "a\n\nb", "name": "Eva"},
        {"role": "user", "content": "c", "name": "Ben"},
    ]


def test_text_blocks_join_and_thinking_is_left_out():
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, "b"]
    assert to_turn(HumanMessage(content)) == {"role": "user", "content": "ab"}


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("a", additional_kwargs={"reasoning_content": "hm"}),
        AIMessage([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]),
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "a"}]),
    ],
)
def test_reasoning_is_passed_on(message):
    assert to_turn(message) == {"role": "assistant", "content": "a", "reasoning_content": "hm"}


def test_tool_calls_and_results_keep_their_structure():
    history = turns(
        AIMessage([{"type": "tool_use", "id": "7", "name": "add", "input": {}}], tool_calls=CALLS[:1]),
        ToolMessage("2", tool_call_id="7", name="add"),
        ToolMessage([{"type": "text", "text": "3"}, "4"], tool_call_id="8", artifact={"x": 1}),
        FunctionMessage("5", name="old"),
    )
    call = {"type": "function", "id": "7", "function": {"name": "add", "arguments": {"a": 1}}}
    assert history == [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "7", "name": "add"},
        {"role": "tool", "content": "34", "tool_call_id": "8"},
        {"role": "tool", "content": "5", "name": "old"},
    ]


@pytest.mark.parametrize(("content", "told"), [("no file", "Error: no file"), ("Error: no", "Error: no")])
def test_failed_tools_say_so(content, told):
    assert to_turn(ToolMessage(content, tool_call_id="1", status="error"))["content"] == told


def test_calls_that_could_not_be_read_are_shown_as_they_were():
    broken = [
        {"type": "invalid_tool_call", "name": "f", "args": "{'a'", "id": "1", "error": None},
        {"type": "invalid_tool_call", "name": "", "args": "<tool_call>f(x)", "id": "2", "error": None},
    ]
    message = AIMessage("Hm.", invalid_tool_calls=broken)
    hermes = 'Hm.\n<tool_call>\n{"name": "f", "arguments": {\'a\'}\n</tool_call>\n<tool_call>f(x)'
    assert to_turn(message)["content"] == hermes
    assert to_turn(message, MISTRAL_NAMED)["content"] == "Hm.\n[TOOL_CALLS]f[ARGS]{'a'\n<tool_call>f(x)"


def test_what_cannot_be_rendered_is_named():
    with pytest.raises(RequestError, match="RemoveMessage"):
        to_turn(RemoveMessage(id="1"))
    with pytest.raises(RequestError, match="'audio'"):
        to_turn(HumanMessage([{"type": "audio"}]))


def test_tools_go_through_the_models_own_template():
    history = [HumanMessage("1?"), AIMessage("", tool_calls=CALLS[:1]), ToolMessage("2", tool_call_id="7")]
    prompt = shown(SMOL, *history, tools=tool_dicts([add]), answer=True)
    assert '"function": {"name": "add", "description": "Add one."' in prompt
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>' in prompt
    assert prompt.endswith("user\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n")
    assert "# Tools" not in shown(SMOL, *history, tools=[])


def test_templates_without_tools_are_told_in_the_system_message():
    history = [
        SystemMessage("Be brief."),
        HumanMessage("1?"),
        AIMessage("So:", tool_calls=CALLS),
        ToolMessage("2", tool_call_id="7"),
        ToolMessage("3", tool_call_id="8"),
    ]
    prompt = shown(LOOP, *history, tools=tool_dicts([add]))
    assert prompt.startswith("[system] Be brief.\n\n# Tools")
    assert '<tools>\n{"name": "add"' in prompt
    calls = (
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "sub", "arguments": {}}\n</tool_call>'
    )
    results = "<tool_response>\n2\n</tool_response>\n\n<tool_response>\n3\n</tool_response>"
    assert prompt.endswith(f"[user] 1?\n[assistant] So:\n{calls}\n[user] {results}\n")
    assert shown(LOOP, HumanMessage("1?"), tools=tool_dicts([add])).startswith("[system] # Tools")
    assert "# Tools" not in shown(LOOP, *history)


def test_refused_system_messages_become_the_users():
    history = [SystemMessage("s"), HumanMessage("a"), AIMessage("b"), SystemMessage("t"), HumanMessage("c")]
    assert shown(ALTERNATING, *history) == "[user] s\n\na\n[assistant] b\n[user] t\n\nc\n"
    assert shown(EARLY_SYSTEM, *history) == "[system] s\n[user] a\n[assistant] b\n[user] t\n\nc\n"
    assert shown(LOOP, *history) == "[system] s\n[user] a\n[assistant] b\n[system] t\n[user] c\n"


def test_names_and_reasoning_give_way_to_alternation():
    history = [
        HumanMessage("a", name="Eva"),
        HumanMessage("b", name="Ben"),
        AIMessage("c", additional_kwargs={"reasoning_content": "hm"}),
        AIMessage("d"),
    ]
    assert shown(ALTERNATING, *history) == "[user] a\n\nb\n[assistant] c\n\nd\n"


def test_an_answer_may_come_first():
    assert shown(ALTERNATING, AIMessage("Hi"), HumanMessage("a")) == "[user] \n[assistant] Hi\n[user] a\n"


def test_parallel_calls_are_split_where_a_template_takes_one():
    history = [
        HumanMessage("?"),
        AIMessage("", tool_calls=CALLS),
        ToolMessage("3", tool_call_id="8"),
        ToolMessage("2", tool_call_id="7"),
    ]
    prompt = shown(SINGLE_CALLS, *history, tools=tool_dicts([add]))
    assert "user ?\ncall add\ntool 2\ncall sub\ntool 3\n" in prompt


def test_ids_are_shortened_for_mistral():
    ids = ["call_0123456789abcdef01234567", "abcdefghi"]
    calls = [{"name": "add", "args": {}, "id": one} for one in ids]
    results = [ToolMessage("2", tool_call_id=one) for one in ids]
    prompt = shown(MISTRAL, AIMessage("", tool_calls=calls), *results, tools=tool_dicts([add]))
    first = prompt.removeprefix("1[TOOL_CALLS]")[:9]
    assert first.isalnum()
    assert prompt == f"1[TOOL_CALLS]{first}[TOOL_CALLS]abcdefghi result {first} result abcdefghi"


def test_a_refusal_names_the_roles_and_the_reason():
    with pytest.raises(RequestError, match=r"\['critic'\]: no critic"):
        shown(ALTERNATING, ChatMessage("c", role="critic"))
    with pytest.raises(RequestError, match="at least one message"):
        shown(LOOP)
    with pytest.raises(RequestError, match="no chat template"):
        shown(None, HumanMessage("a"))


def test_counting_leaves_the_answer_closed():
    assert (
        shown(SMOL, HumanMessage("a"), answer=True)
        == shown(SMOL, HumanMessage("a")) + "<|im_start|>assistant\n"
    )


def test_a_text_block_without_text_is_refused():
    assert to_turn(HumanMessage([{"type": "text", "text": "a"}, {"type": "text"}]))["content"] == "a"
    with pytest.raises(RequestError, match="text=None: give a string"):
        to_turn(HumanMessage([{"type": "text", "text": None}]))


@pytest.mark.parametrize("message", [HumanMessage([{"type": ["x"]}]), AIMessage([{"type": ["x"]}])])
def test_a_block_whose_type_is_no_string_is_refused(message):
    with pytest.raises(RequestError, match=r"type=\['x'\]: give a string"):
        to_turn(message)


@pytest.mark.parametrize(
    ("messages", "settings"),
    [
        ([HumanMessage("hello \ud800")], {}),
        ([AIMessage("", tool_calls=[{"name": "add", "args": {"a": ["hello \ud800"]}, "id": "7"}])], {}),
        ([HumanMessage("hi")], {"options": {"date": "hello \ud800"}}),
    ],
)
def test_half_characters_are_refused_wherever_they_are(messages, settings):
    with pytest.raises(RequestError, match=r"hello \\ud800.* has the lone surrogate '\\ud800'.*remove it"):
        encode(tiny.tokenizer(), messages, **settings)
