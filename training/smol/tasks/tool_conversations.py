"""Conversations in which the assistant calls tools, in the Hermes/Qwen form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .chat import SYSTEM_PROMPT, Turn
from .structured_output import random_structured_request
from .tool_requests import ask_for
from .tool_signatures import Tool, random_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .argument_source import ArgumentSource, Value

    Chat = Callable[[], tuple[str, str]]

TOOLS_BEFORE = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
"""
TOOLS_AFTER = """
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
KIND_WEIGHTS = {
    "call": 36,
    "parallel": 8,
    "content": 14,
    "full": 18,
    "none": 8,
    "json": 8,
    "two": 8,
}
SYSTEM_PROMPTS = [
    SYSTEM_PROMPT,
    SYSTEM_PROMPT,
    "",
    "You are a helpful assistant.",
    "You are an assistant that can use tools.",
]


def system_with_tools(system: str, tools: Sequence[Tool]) -> str:
    """Return the system message that shows `tools` to the assistant."""
    shown = "\n".join(json.dumps(tool.schema) for tool in tools)
    return _before(system) + TOOLS_BEFORE + shown + TOOLS_AFTER


def tool_call(name: str, arguments: Mapping[str, Value]) -> str:
    """Return the assistant's text that calls a tool."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def tool_conversation(source: ArgumentSource, chat: Chat) -> list[Turn]:
    """Return one random conversation about tools.

    Args:
        source: Where tools, arguments and phrasings are drawn from.
        chat: Gives a plain question and its answer, for a conversation where tools are of no use.

    Returns:
        The turns, the system message first; the assistant's turns are marked to be learned.
    """
    r = source.random
    kind = r.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))[0]
    system = r.choice(SYSTEM_PROMPTS)
    if kind == "json":
        return _json_by_schema(source, system)
    tools = [random_tool(source) for _ in range(r.choice([1, 1, 1, 2, 2, 3]))]
    position = r.randrange(len(tools))
    if kind == "content":
        request = random_structured_request(source)
        tools[position] = request.tool
        call = tool_call(request.tool.name, request.answer)
        return _exchange(system_with_tools(system, tools), request.question, call)
    shown = system_with_tools(system, tools)
    if kind == "none":
        return _exchange(shown, *chat())
    tool = tools[position]
    if kind == "parallel":
        return _exchange(shown, *_two_calls_of_one_tool(source, tool))
    if kind == "two" and len(tools) > 1:
        other = tools[(position + 1) % len(tools)]
        return _exchange(shown, *_one_call_of_each(source, tool, other))
    return _single_call(source, shown, tool, answered=kind == "full")


def _before(system: str) -> str:
    return system + "\n\n" if system else ""


def _exchange(system: str, question: str, answer: str) -> list[Turn]:
    return [Turn("system", system), Turn("user", question), Turn("assistant", answer, learn=True)]


def _json_by_schema(source: ArgumentSource, system: str) -> list[Turn]:
    request = random_structured_request(source)
    instruction = "Respond only with a JSON object that matches this JSON schema:\n"
    message = _before(system) + instruction + json.dumps(request.parameters)
    return _exchange(message, request.question, json.dumps(request.answer))


def _two_calls_of_one_tool(source: ArgumentSource, tool: Tool) -> tuple[str, str]:
    r = source.random
    first, second = source.arguments(tool.kinds), source.arguments(tool.kinds)
    both = f"first with {json.dumps(first)} and then with {json.dumps(second)}"
    question = r.choice(
        [
            f"{ask_for(r, tool, first)} And also: {ask_for(r, tool, second)}",
            f"Call {tool.name} twice: {both}.",
            f"{ask_for(r, tool, first)} {ask_for(r, tool, second)}",
        ]
    )
    return question, tool_call(tool.name, first) + "\n" + tool_call(tool.name, second)


def _one_call_of_each(source: ArgumentSource, first: Tool, second: Tool) -> tuple[str, str]:
    r = source.random
    first_arguments = source.arguments(first.kinds)
    second_arguments = source.arguments(second.kinds)
    question = f"{ask_for(r, first, first_arguments)} Then: {ask_for(r, second, second_arguments)}"
    calls = [tool_call(first.name, first_arguments), tool_call(second.name, second_arguments)]
    return question, "\n".join(calls)


def _single_call(source: ArgumentSource, system: str, tool: Tool, *, answered: bool) -> list[Turn]:
    r = source.random
    arguments = source.arguments(tool.kinds)
    call = tool_call(tool.name, arguments)
    turns = _exchange(system, ask_for(r, tool, arguments), call)
    if not answered:
        return turns
    result, answer = _result_and_answer(source, tool, arguments)
    turns.append(Turn("user", f"<tool_response>\n{result}\n</tool_response>"))
    turns.append(Turn("assistant", answer, learn=True))
    if r.random() < 0.25:
        arguments = source.arguments(tool.kinds)
        turns.append(Turn("user", ask_for(r, tool, arguments)))
        turns.append(Turn("assistant", tool_call(tool.name, arguments), learn=True))
    return turns


def _result_and_answer(source: ArgumentSource, tool: Tool, arguments: Mapping[str, Value]) -> tuple[str, str]:
    r = source.random
    value = r.choice(
        [
            source.draw("integer"),
            source.draw("number"),
            source.draw("word"),
            source.draw("phrase"),
            f"{source.draw('integer')} degrees",
            "sunny",
            "cloudy and cold",
            "done",
            "ok",
            "not found",
        ]
    )
    result = r.choice(
        [
            str(value),
            json.dumps({"result": value}),
            json.dumps({"status": "ok", "value": value}),
            f"The {tool.phrase} is {value}.",
        ]
    )
    shown = ", ".join(str(argument) for argument in arguments.values())
    answer = r.choice(
        [
            f"The result of {tool.name}({shown}) is {value}.",
            f"The {tool.phrase} is {value}.",
            f"The answer is {value}.",
            f"The tool returned {value}.",
            f"Here is the result: {value}.",
        ]
    )
    return result, answer
