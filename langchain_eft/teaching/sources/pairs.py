"""Preference pairs: a better and a worse answer to one prompt."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.examples import PreferencePair, without_spaces
from langchain_eft.teaching.sources.conversations import check_roles, read_messages, read_tools


def read_pair(place: str, row: dict[str, Any]) -> PreferencePair:
    """A pair from a row with `chosen` and `rejected`, and `prompt` unless both begin with it.

    Each of them is a text or a list of messages.

    Raises:
        TeachingError: Messages that cannot be read, roles out of order, no prompt, or two equal answers.
    """
    chosen, rejected = (_messages(place, row[name], AIMessage) for name in ("chosen", "rejected"))
    prompt = _messages(place, row["prompt"], HumanMessage) if row.get("prompt") else []
    if not prompt:
        prompt = [first for first, second in zip(chosen[:-1], rejected[:-1], strict=False) if first == second]
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    if not prompt:
        raise TeachingError(f"{place}: the pair has no prompt: add `prompt`, a text or a list of messages.")
    if len(chosen) != 1 or len(rejected) != 1:
        raise TeachingError(
            f"{place}: chosen and rejected must each add one answer to the prompt, and they add "
            f"{len(chosen)} and {len(rejected)} messages: move what they have in common into `prompt`."
        )
    for answer in (chosen[0], rejected[0]):
        check_roles(place, [*prompt, answer])
    better, worse = chosen[0], rejected[0]
    if not isinstance(better, AIMessage) or not isinstance(worse, AIMessage):
        raise TeachingError(f"{place}: chosen and rejected must end with an answer of the assistant.")
    if better == worse:
        raise TeachingError(f"{place}: chosen and rejected are equal: nothing can be learned from the pair.")
    return PreferencePair(place, tuple(prompt), better, worse, read_tools(place, row))


def _messages(place: str, value: Any, kind: type[AIMessage | HumanMessage]) -> list[BaseMessage]:
    if not isinstance(value, str):
        return read_messages(place, value)
    message = kind(value)
    return [without_spaces(message) if isinstance(message, AIMessage) else message]
