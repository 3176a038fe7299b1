"""LangChain messages to token ids, through the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_eft.engine.errors import RequestError

_SILENT_BLOCKS = {
    "tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call",
    "thinking", "reasoning", "redacted_thinking",
}  # fmt: skip
"""Content blocks that carry no text of their own; tool calls are rendered from `tool_calls`."""


def encode(tokenizer: Any, messages: Sequence[BaseMessage], *, answer: bool = True) -> tuple[int, ...]:
    """Render messages and tokenize them.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        messages: The conversation, oldest first.
        answer: Open the assistant's turn at the end.

    Raises:
        RequestError: No messages, no chat template, or content that is not text.
    """
    if not messages:
        raise RequestError("messages=[] is empty: give at least one message.")
    if not tokenizer.chat_template:
        raise RequestError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no chat template: give one with "
            "`chat_template='<file>.jinja'`."
        )
    turns = merge([to_turn(message) for message in messages])
    try:
        encoded = tokenizer.apply_chat_template(
            turns, add_generation_prompt=answer, tokenize=True, return_dict=False
        )
    except Exception as error:  # templates raise whatever they like
        roles = [turn["role"] for turn in turns]
        raise RequestError(
            f"The model's chat template refuses messages with roles {roles}: {error}"
        ) from error
    return tuple(encoded)


def to_turn(message: BaseMessage) -> dict[str, Any]:
    """A message in the form that chat templates read.

    Raises:
        RequestError: A message type or content block that has no text form.
    """
    turn: dict[str, Any] = {"role": role(message), "content": text(message)}
    if isinstance(message, AIMessage) and message.tool_calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": c["id"],
                "function": {"name": c["name"], "arguments": c["args"]},
            }
            for c in message.tool_calls
        ]
    if isinstance(message, ToolMessage):
        turn["tool_call_id"] = message.tool_call_id
    if isinstance(message, ToolMessage | FunctionMessage) and message.name:
        turn["name"] = message.name
    return turn


def role(message: BaseMessage) -> str:
    """The template's name for the message's author."""
    match message:
        case ChatMessage():
            return message.role
        case SystemMessage():
            return "system"
        case HumanMessage():
            return "user"
        case AIMessage():
            return "assistant"
        case ToolMessage() | FunctionMessage():
            return "tool"
    raise RequestError(
        f"Messages of type {type(message).__name__} cannot be rendered: use system, human, AI or tool "
        "messages."
    )


def text(message: BaseMessage) -> str:
    """The message's text blocks, joined.

    Raises:
        RequestError: The content holds media.
    """
    if isinstance(message.content, str):
        return message.content
    parts = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text":
            parts.append(str(block.get("text", "")))
        elif block.get("type") not in _SILENT_BLOCKS:
            raise RequestError(
                f"Content of type {block.get('type')!r} cannot be read by a text model: send text "
                "blocks only."
            )
    return "".join(parts)


def merge(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join runs of one role, which many templates refuse; tool results and tool calls stay apart."""
    merged: list[dict[str, Any]] = []
    for turn in turns:
        last = merged[-1] if merged else None
        plain = set(turn) == {"role", "content"} and turn["role"] != "tool"
        if last and plain and set(last) == set(turn) and last["role"] == turn["role"]:
            merged[-1] = {**last, "content": f"{last['content']}\n\n{turn['content']}"}
        else:
            merged.append(turn)
    return merged
