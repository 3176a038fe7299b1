"""Conversations in which an assistant calls tools, as rows that `langchain_eft.teaching` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.smol.tasks.structured_output import random_structured_request
from training.smol.tasks.tools.objects import extraction, instruction, report
from training.smol.tasks.tools.requests import ask_for
from training.smol.tasks.tools.results import answer_to_several, random_result
from training.smol.tasks.tools.signatures import Tool, random_tool
from training.smol.tasks.tools.values import Value
from training.smol.tasks.tools.words import Words

Row = dict[str, Any]
Message = dict[str, Any]
Call = tuple[str, Mapping[str, Value]]
"""Name and arguments."""

Chat = tuple[str, Message]
"""A plain question, and the base's answer."""

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are an assistant that can use tools.",
    "You are a helpful assistant. Use tools.",
    "You answer questions.",
    "Use the tools where they help.",
    "You are an agent. Call tools, then answer.",
    "You work for a company and help its customers.",
    "Be brief.",
)
"""System messages. Most conversations have none, and get the template's own."""


def user(text: str) -> Message:
    """A message of the user."""
    return {"role": "user", "content": text}


def said(text: str) -> Message:
    """An answer in words."""
    return {"role": "assistant", "content": text}


def called(*calls: Call) -> Message:
    """An answer that calls tools."""
    written = [
        {
            "id": f"call_{i}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for i, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": "", "tool_calls": written}


def returned(*texts: str) -> list[Message]:
    """The results of the calls before."""
    return [{"role": "tool", "tool_call_id": f"call_{i}", "content": text} for i, text in enumerate(texts)]


def tool_conversation(words: Words, chats: Sequence[Chat]) -> Row:
    """One conversation.

    Args:
        words: Where everything random comes from.
        chats: Plain questions with the base's answers, for conversations in which tools are of no use.
    """
    r = words.random
    kind = r.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    return KINDS[kind][1](words, chats)


def single_call(words: Words) -> tuple[list[Tool], Message, Call]:
    """Tools, a request, and the one right call."""
    tools, tool = random_tools(words)
    arguments = tool.arguments(words)
    return tools, user(ask_for(words, tool, arguments)), (tool.name, arguments)


def random_tools(words: Words) -> tuple[list[Tool], Tool]:
    """One to three tools with different names, and the one to be called."""
    r = words.random
    chosen = random_tool(words)
    tools = {chosen.name: chosen}
    for _ in range(r.choice((0, 0, 1, 1, 2, 2))):
        other = random_tool(words, like=chosen if r.random() < 0.4 else None)
        tools.setdefault(other.name, other)
    shuffled = list(tools.values())
    r.shuffle(shuffled)
    return shuffled, chosen


def _row(
    words: Words, messages: Sequence[Message], tools: Sequence[Tool | Row] = (), schema: Row | None = None
) -> Row:
    r = words.random
    system = [r.choice(SYSTEM_PROMPTS)] if r.random() < 0.35 else []
    if schema is not None:
        system.append(instruction(schema))
    opening = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    shown = [tool.schema if isinstance(tool, Tool) else tool for tool in tools]
    return {"messages": [*opening, *messages], **({"tools": shown} if shown else {})}


def _single(words: Words, _: Sequence[Chat]) -> Row:
    tools, request, call = single_call(words)
    return _row(words, [request, called(call)], tools)


def _exchanges(words: Words, _: Sequence[Chat]) -> Row:
    tools, tool = random_tools(words)
    messages: list[Message] = []
    for _turn in range(words.random.choice((1, 1, 2))):
        arguments = tool.arguments(words)
        result = random_result(words, tool, arguments)
        messages += [user(ask_for(words, tool, arguments)), called((tool.name, arguments))]
        messages += [*returned(result.text), said(result.answer)]
        tool = words.random.choice(tools)
    return _row(words, messages, tools)


def _parallel(words: Words, _: Sequence[Chat]) -> Row:
    r = words.random
    tools, first = random_tools(words)
    second = first if r.random() < 0.6 else r.choice(tools)
    calls = [(tool, tool.arguments(words)) for tool in (first, second)]
    requests = [ask_for(words, tool, arguments) for tool, arguments in calls]
    between = r.choice((" And also: ", " ", " Then: ", "\n", " After that: ", " Second: ", " Also, "))
    messages = [user(between.join(requests)), called(*((tool.name, arguments) for tool, arguments in calls))]
    if r.random() < 0.5:
        results = [random_result(words, tool, arguments) for tool, arguments in calls]
        messages += [*returned(*(result.text for result in results)), said(answer_to_several(words, results))]
    return _row(words, messages, tools)


def _content(words: Words, _: Sequence[Chat]) -> Row:
    """The assistant writes the arguments itself."""
    request = random_structured_request(words)
    if words.random.random() < 0.4:
        return _row(
            words, [user(request.question), said(json.dumps(request.answer))], schema=request.parameters
        )
    others, _tool = random_tools(words)
    tools: list[Tool | Row] = [*others[: words.random.choice((0, 0, 1, 2))], request.tool.schema]
    words.random.shuffle(tools)
    return _row(words, [user(request.question), called((request.tool.name, request.answer))], tools)


def _extracted(words: Words, _: Sequence[Chat]) -> Row:
    """An object, with values of the user's message."""
    wanted = extraction(words)
    answer = said(json.dumps(wanted.value, ensure_ascii=False))
    return _row(words, [user(wanted.request), answer], schema=wanted.schema)


def _reported(words: Words, chats: Sequence[Chat]) -> Row:
    """A call, its result, and an object that holds it."""
    tools, tool = random_tools(words)
    arguments = tool.arguments(words)
    result = random_result(words, tool, arguments)
    if result.value is None or result.value == []:
        return _reported(words, chats)
    wanted = report(words, tool, arguments, result)
    messages = [user(ask_for(words, tool, arguments)), called((tool.name, arguments)), *returned(result.text)]
    return _row(words, [*messages, said(json.dumps(wanted.value, ensure_ascii=False))], tools, wanted.schema)


def _useless(words: Words, chats: Sequence[Chat]) -> Row:
    """Tools that do not help: the answer is the base's own."""
    tools, _tool = random_tools(words)
    question, answer = words.random.choice(chats)
    return _row(words, [user(question), answer], tools)


def _plain(words: Words, chats: Sequence[Chat]) -> Row:
    """No tools: the answer is the base's own."""
    question, answer = words.random.choice(chats)
    return {"messages": [user(question), answer]}


KINDS: Mapping[str, tuple[int, Callable[[Words, Sequence[Chat]], Row]]] = {
    "single": (30, _single),
    "exchanges": (20, _exchanges),
    "parallel": (18, _parallel),
    "content": (5, _content),
    "extracted": (4, _extracted),
    "reported": (5, _reported),
    "useless": (7, _useless),
    "plain": (11, _plain),
}
"""Kinds of conversations with their weights."""
