"""Any history renders."""

import pytest
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_eft.engine.errors import RequestError
from langchain_eft.messages import merge, to_turn


def turns(*messages):
    return merge([to_turn(message) for message in messages])


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


def test_text_blocks_join_and_thinking_is_left_out():
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, "b"]
    assert to_turn(HumanMessage(content))["content"] == "ab"


def test_tool_calls_and_results_keep_their_structure():
    call = {"name": "add", "args": {"a": 1}, "id": "7"}
    history = turns(
        AIMessage("", tool_calls=[call]),
        ToolMessage("2", tool_call_id="7", name="add"),
        ToolMessage("3", tool_call_id="8", status="error"),
    )
    assert history[0]["tool_calls"] == [
        {"type": "function", "id": "7", "function": {"name": "add", "arguments": {"a": 1}}}
    ]
    assert [turn["role"] for turn in history[1:]] == ["tool", "tool"]
    assert history[1]["tool_call_id"] == "7"


def test_what_cannot_be_rendered_is_named():
    with pytest.raises(RequestError, match="RemoveMessage"):
        to_turn(RemoveMessage(id="1"))
    with pytest.raises(RequestError, match="'audio'"):
        to_turn(HumanMessage([{"type": "audio"}]))
