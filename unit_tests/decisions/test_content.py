"""States and criteria as text: strings stay, messages are their text, structures are JSON."""

import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_eft.decisions.content import as_text
from langchain_eft.engine.errors import RequestError

IMAGE = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}


def read(value, unsupported_content="error"):
    return as_text(value, unsupported_content, "The state")


def test_texts_and_messages_are_their_text():
    assert read('say "hi"') == 'say "hi"'
    assert read(None) == ""
    assert read(HumanMessage([{"type": "text", "text": "a"}, "b"])) == "ab"


def test_structures_are_json_at_any_depth():
    call = {"name": "rm", "args": {"path": "/"}, "id": "1", "type": "tool_call"}
    state = {
        "messages": (
            SystemMessage("be good"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("no", tool_call_id="1"),
        ),
        "user": {"age": 7, "vip": True, "score": 0.5, "name": "Zoë", "note": None},
    }
    plain = json.loads(read(state))
    assert plain["user"] == state["user"]
    assert plain["messages"][0] == {"role": "system", "content": "be good"}
    assert plain["messages"][1]["tool_calls"][0]["function"] == {"name": "rm", "arguments": {"path": "/"}}
    assert plain["messages"][2] == {"role": "tool", "content": "no", "tool_call_id": "1"}
    assert "Zoë" in read(state)
    assert json.loads(read(AIMessage("", tool_calls=[call])))["tool_calls"]
    assert json.loads(read([1, [HumanMessage("x")]])) == [1, [{"role": "user", "content": "x"}]]


@pytest.mark.parametrize("state", [IMAGE, {"photo": [IMAGE]}, HumanMessage([IMAGE]), [HumanMessage([IMAGE])]])
def test_media_are_described_or_refused(state):
    assert "[image, image/png" in read(state, "describe")
    assert "aGk=" not in read(state, "describe")
    with pytest.raises(RequestError, match=r"image.*unsupported_content='describe'"):
        read(state)


def test_data_that_only_look_like_media_stay():
    assert json.loads(read({"type": "image", "width": 3})) == {"type": "image", "width": 3}
    assert json.loads(read({"type": "refund", "data": 3})) == {"type": "refund", "data": 3}


@pytest.mark.parametrize("value", [{"a": object()}, {"a": float("nan")}, {1, 2}, [b"x"]])
def test_what_json_lacks_is_refused(value):
    with pytest.raises(RequestError, match="The state cannot be written as JSON"):
        read(value)
