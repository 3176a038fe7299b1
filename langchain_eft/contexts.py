"""What one side of a behaviour reads where it compares two texts: a prompt more, or a document less."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from langchain_eft.behaviors import BehaviorDelta
from langchain_eft.engine.errors import RequestError
from langchain_eft.messages import instruct


def other_conversations(
    messages: Sequence[BaseMessage], behaviors: Mapping[str, BehaviorDelta]
) -> dict[str, list[BaseMessage]]:
    """The conversation that each behaviour compares the main one with, by name.

    Args:
        messages: The main one.
        behaviors: Those that compare texts.

    Raises:
        RequestError: A behaviour takes away what is not there.
    """
    return {name: changed_messages(messages, name, delta) for name, delta in behaviors.items()}


def other_texts(text: str, behaviors: Mapping[str, BehaviorDelta]) -> dict[str, str]:
    """The same for a plain text.

    Raises:
        RequestError: A behaviour takes away what is not there.
    """
    return {name: changed_text(text, name, delta) for name, delta in behaviors.items()}


def changed_messages(messages: Sequence[BaseMessage], name: str, delta: BehaviorDelta) -> list[BaseMessage]:
    """The conversation with a behaviour's prompt, or without what stands in its tag.

    Raises:
        RequestError: No message has the tag.
    """
    if delta.prompt is not None:
        return instruct(messages, delta.prompt)
    cut = [_without(message, delta) for message in messages]
    if all(after == before for after, before in zip(cut, messages, strict=True)):
        raise _nothing_to_remove(name, delta)
    return [message for message in cut if message.content or not _may_vanish(message)]


def changed_text(text: str, name: str, delta: BehaviorDelta) -> str:
    """The same for a plain text; a prompt stands before it, with an empty line between.

    Raises:
        RequestError: The text does not have the tag.
    """
    if delta.prompt is not None:
        return f"{delta.prompt}\n\n{text}"
    cut = _cut(text, delta)
    if cut == text:
        raise _nothing_to_remove(name, delta)
    return cut


def _without(message: BaseMessage, delta: BehaviorDelta) -> BaseMessage:
    if isinstance(message.content, str):
        content: str | list[str | dict[str, object]] = _cut(message.content, delta)
    else:
        content = [
            _cut(block, delta)
            if isinstance(block, str)
            else {**block, "text": _cut(block["text"], delta)}
            if block.get("type") == "text"
            else block
            for block in message.content
        ]
    return message.model_copy(update={"content": content})


def _cut(text: str, delta: BehaviorDelta) -> str:
    shorter, found = re.subn(rf"<{delta.without}>.*?</{delta.without}>", "", text, flags=re.DOTALL)
    return shorter.strip() if found else text


def _may_vanish(message: BaseMessage) -> bool:
    # An empty answer or tool result still belongs to what stands before it.
    return isinstance(message, HumanMessage | SystemMessage)


def _nothing_to_remove(name: str, delta: BehaviorDelta) -> RequestError:
    tag = delta.without
    return RequestError(
        f"The behaviour {name!r} compares the conversation with and without what stands in "
        f"<{tag}>...</{tag}>, and nothing does: put documents between these tags, or leave {name!r} out of "
        "`mixture`."
    )
