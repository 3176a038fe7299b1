"""Conversations in OpenAI's message form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)

from langchain_eft.chat.tools import tool_dicts
from langchain_eft.engine.errors import EngineError
from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.examples import Conversation, without_spaces


def read_conversation(place: str, row: dict[str, Any]) -> Conversation:
    """A conversation from a row with `messages`, and `tools` if there are any.

    Raises:
        TeachingError: Messages that cannot be read, roles out of order, or nothing to learn.
    """
    messages = read_messages(place, row["messages"])
    check_roles(place, messages)
    if not isinstance(messages[-1], AIMessage):
        raise TeachingError(
            f"{place}: the conversation ends with a message of {_role(messages[-1])!r}, which nothing "
            "answers: add the assistant's answer, or remove the message."
        )
    return Conversation(place, tuple(messages), read_tools(place, row))


def read_messages(place: str, messages: Any) -> list[BaseMessage]:
    """Messages as LangChain's, answers without white space around them.

    Raises:
        TeachingError: Something that is not a message.
    """
    if not isinstance(messages, list) or not messages:
        raise TeachingError(
            f'{place}: messages must be a list such as [{{"role": "user", "content": "..."}}, ...], got '
            f"{str(messages)[:80]!r}."
        )
    try:
        converted = convert_to_messages(messages)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise TeachingError(
            f"{place}: the messages cannot be read ({error}): write objects with `role` and `content`."
        ) from error
    return [without_spaces(each) if isinstance(each, AIMessage) else each for each in converted]


def read_tools(place: str, row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The tools of a row.

    Raises:
        TeachingError: Something that is not a tool.
    """
    try:
        return tuple(tool_dicts(row.get("tools") or ()))
    except EngineError as error:
        raise TeachingError(f"{place}: {error}") from error


def check_roles(place: str, messages: Sequence[BaseMessage]) -> None:
    """Refuse roles out of order.

    A system message comes first. A user speaks next, then user and assistant take turns. A tool's result
    follows a call.

    Raises:
        TeachingError: The first message that stands where it cannot.
    """
    before: BaseMessage | None = None
    for i, message in enumerate(messages):
        if problem := _misplaced(before, message):
            raise TeachingError(f"{place}: message {i + 1} has the role {_role(message)!r}, but {problem}.")
        if isinstance(message, AIMessage) and not message.content and not message.tool_calls:
            raise TeachingError(
                f"{place}: message {i + 1} is an empty answer: write its content or its tool calls."
            )
        before = message


def _misplaced(before: BaseMessage | None, message: BaseMessage) -> str | None:
    """Why a message cannot follow another one; None if it can."""
    opening = before is None or isinstance(before, SystemMessage)
    match message:
        case SystemMessage():
            return None if before is None else "a system message comes first"
        case HumanMessage():
            return "two user messages follow each other" if isinstance(before, HumanMessage) else None
        case AIMessage():
            if opening:
                return "there is nothing to answer: a user message comes first"
            return "two answers follow each other" if isinstance(before, AIMessage) else None
        case ToolMessage():
            called = isinstance(before, ToolMessage) or (isinstance(before, AIMessage) and before.tool_calls)
            return None if called else "a tool's result follows the answer that calls the tool"
    return "roles are system, user, assistant and tool"


def _role(message: BaseMessage) -> str:
    return {"human": "user", "ai": "assistant"}.get(message.type, message.type)
