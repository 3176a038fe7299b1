"""LangChain messages to token ids, through the model's chat template or through a template of plain text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import takewhile
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolMessage,
)

from langchain_eft.chat.control_tokens import ControlTokens
from langchain_eft.chat.overlong import refuse_overlong
from langchain_eft.chat.surrogates import refuse_surrogates
from langchain_eft.chat.tool_formats import HERMES, ToolFormat, detect_tool_format, tool_instructions
from langchain_eft.engine.error_text import quoted_names, shown
from langchain_eft.engine.errors import RequestError

_SILENT_BLOCKS = {
    "tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call",
    "thinking", "reasoning", "redacted_thinking",
}  # fmt: skip
"""Content blocks that are not part of a message's text. Tool calls are rendered from `tool_calls`."""


Turn = dict[str, Any]


def encode(
    tokenizer: Any,
    messages: Sequence[BaseMessage],
    *,
    answer: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_format: ToolFormat | None = None,
    options: Mapping[str, Any] | None = None,
    sanitize_control_tokens: bool = True,
    window: int | None = None,
) -> tuple[int, ...]:
    """Render messages with the chat template and tokenize them.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        messages: The conversation, oldest first.
        answer: Open the assistant's turn at the end.
        tools: OpenAI tool dictionaries that the model may call.
        tool_format: The format of tool calls. By default the chat template decides.
        options: Variables of the chat template.
        sanitize_control_tokens: Keep the text of messages, tools and variables from becoming control tokens.
        window: Tokens that a prompt and its answer may have together; None takes any length.

    Raises:
        ContextWindowError: The text is much longer than `window`.
        RequestError: No messages, no chat template, or content that is not text.
    """
    if not messages:
        raise RequestError("messages=[] is empty: give at least one message.")
    if not tokenizer.chat_template:
        raise RequestError(
            f"The tokenizer of {tokenizer.name_or_path!r} has no chat template: give one with "
            "`chat_template='<file>.jinja'`."
        )
    tool_format = tool_format or detect_tool_format(tokenizer)
    control = ControlTokens(tokenizer, sanitize=sanitize_control_tokens)
    turns = _marked_turns(messages, tool_format, control)
    tools = control.mark(tools or ())
    if tool_format.name == "prompted":
        turns, tools = tools_as_text(turns, tools, tool_format), ()
    if tool_format.name == "mistral":
        turns = _short_ids(turns)
    settings = {"tools": tools or None, "add_generation_prompt": answer}
    variables = _marked_variables(tokenizer, options or {}, control)
    text = _rendered(tokenizer, "chat_template", turns, settings, variables)
    refuse_overlong(tokenizer, text, window)
    return control.encode(text)


def encode_plainly(
    tokenizer: Any,
    template: str,
    messages: Sequence[BaseMessage],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_format: ToolFormat | None = None,
    options: Mapping[str, Any] | None = None,
    sanitize_control_tokens: bool = True,
    window: int | None = None,
) -> tuple[int, ...]:
    """Render messages as plain text that ends with an answer's opening, and tokenize it.

    Args:
        tokenizer: A transformers tokenizer.
        template: A Jinja template. It needs no support of tools: they are written as text.
        messages: The conversation, oldest first.
        tools: OpenAI tool dictionaries that the model may call.
        tool_format: The format of tool calls. By default the chat template decides.
        options: Variables of the template.
        sanitize_control_tokens: Keep the text of messages, tools and variables from becoming control tokens.
        window: Tokens that a prompt and its answer may have together; None takes any length.

    Raises:
        ContextWindowError: The text is much longer than `window`.
        RequestError: Content that is not text, or a template that cannot be rendered.
    """
    tool_format = tool_format or detect_tool_format(tokenizer)
    control = ControlTokens(tokenizer, sanitize=sanitize_control_tokens)
    turns = _marked_turns(messages, tool_format, control)
    turns = tools_as_text(turns, control.mark(tools or ()), tool_format)
    settings = {"chat_template": template, "add_generation_prompt": True}
    variables = _marked_variables(tokenizer, options or {}, control)
    text = _rendered(tokenizer, "base_template", turns, settings, variables)
    refuse_overlong(tokenizer, text, window)
    return control.encode(text, add_special_tokens=True)


def _marked_turns(
    messages: Sequence[BaseMessage], tool_format: ToolFormat, control: ControlTokens
) -> list[Turn]:
    mark_own = partial(control.mark, tags=False)
    return [
        to_turn(message, tool_format, mark_own if isinstance(message, AIMessage) else control.mark)
        for message in messages
    ]


def _marked_variables(
    tokenizer: Any, variables: Mapping[str, Any], control: ControlTokens
) -> Mapping[str, Any]:
    """Variables of a template with marked text. A template and the tokens that it writes stay as they are."""
    arguments = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters}
    if taken := (arguments - {"chat_template", "documents"}) & set(variables):
        raise RequestError(
            f"chat_template_kwargs has {quoted_names(taken)}, which every prompt sets by itself: leave it "
            "out, and give variables that are the template's own."
        )
    own = {"chat_template", *tokenizer.special_tokens_map}
    return {name: value if name in own else control.mark(value) for name, value in variables.items()}


def _rendered(
    tokenizer: Any, kind: str, turns: Sequence[Turn], settings: Mapping[str, Any], options: Mapping[str, Any]
) -> str:
    """The rendered turns, or the first of their simplifications that the template accepts."""
    refuse_surrogates([turns, settings.get("tools"), options])
    simplified, refusal = merge(turns), None
    for simplify in (None, *_SIMPLIFICATIONS):
        simplified = simplify(simplified) if simplify else simplified
        try:
            return str(tokenizer.apply_chat_template(simplified, tokenize=False, **settings, **options))
        except Exception as error:  # noqa: BLE001 - templates may raise anything
            refusal = refusal or error
    raise RequestError(
        f"The model's {kind.replace('_', ' ')} refuses messages with roles {[t['role'] for t in turns]}: "
        f"{refusal}. Change their order, or give another template with `{kind}='<file>.jinja'`."
    ) from refusal


def to_turn(
    message: BaseMessage,
    tool_format: ToolFormat = HERMES,
    mark: Callable[[Any], Any] = lambda text: text,
) -> Turn:
    """A message in the form that chat templates read.

    Args:
        message: A message of text.
        tool_format: The format in which invalid calls are written back.
        mark: Marks the control tokens in text of the message.

    Raises:
        RequestError: A message type or content block that has no text form.
    """
    turn: Turn = {"role": mark(role(message)), "content": mark(text(message))}
    if isinstance(message, AIMessage):
        invalid = [_invalid_call(call, tool_format) for call in mark(message.invalid_tool_calls)]
        turn["content"] = "\n".join(part for part in (turn["content"], *invalid) if part)
        if thoughts := reasoning(message):
            turn["reasoning_content"] = mark(thoughts)
        if message.tool_calls:
            turn["tool_calls"] = [
                {"type": "function", "id": c["id"], "function": {"name": c["name"], "arguments": c["args"]}}
                for c in mark(message.tool_calls)
            ]
    if isinstance(message, ToolMessage):
        turn["tool_call_id"] = mark(message.tool_call_id)
        if message.status == "error" and not turn["content"].startswith("Error"):
            turn["content"] = f"Error: {turn['content']}"
    if message.name:
        turn["name"] = mark(message.name)
    return turn


def _invalid_call(call: InvalidToolCall, tool_format: ToolFormat) -> str:
    arguments = call["args"] or ""
    return tool_format.render_call(call["name"], arguments) if call["name"] else arguments


def reasoning(message: AIMessage) -> str:
    """The reasoning of a message, from any of the places where providers put it."""
    thoughts = message.additional_kwargs.get("reasoning_content")
    if isinstance(thoughts, str):
        return thoughts
    blocks = [block for block in message.content if isinstance(block, dict)]
    kinds = ("thinking", "reasoning")  # each has its text under its own name
    return "".join(str(block.get(kind, "")) for block in blocks if (kind := block_type(block)) in kinds)


def role(message: BaseMessage) -> str:
    """The chat template's role of a message.

    Raises:
        RequestError: A message type without a role.
    """
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


def is_text(block: str | Mapping[str, Any]) -> bool:
    """Whether a content block is text, or is rendered from another part of the message.

    Raises:
        RequestError: A block whose type is not a string.
    """
    return isinstance(block, str) or "text" in block or block_type(block) in {"text", *_SILENT_BLOCKS}


def block_type(block: Mapping[str, Any]) -> str | None:
    """The type of a content block, or None.

    Raises:
        RequestError: It is not a string.
    """
    kind = block.get("type")
    if kind is None or isinstance(kind, str):
        return kind
    raise RequestError(f"A content block has type={shown(kind)}: give a string, such as 'text'.")


def check_blocks(message: BaseMessage) -> None:
    """Refuse content blocks of which nobody can say what they are.

    Raises:
        RequestError: A block whose type is not a string.
    """
    for block in () if isinstance(message.content, str) else message.content:
        if isinstance(block, dict):
            block_type(block)


def text(message: BaseMessage) -> str:
    """The message's text blocks, joined.

    Raises:
        RequestError: The content holds media, or a text block without text.
    """
    if isinstance(message.content, str):
        return message.content
    parts = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
        elif not is_text(block):
            raise RequestError(
                f"Content of type {block_type(block)!r} cannot be read by a text model: send text "
                "blocks only, or set `unsupported_content='describe'`."
            )
        elif block_type(block) not in _SILENT_BLOCKS:
            parts.append(_text_of(block))
    return "".join(parts)


def _text_of(block: Mapping[str, Any]) -> str:
    words = block.get("text", "")
    if not isinstance(words, str):
        raise RequestError(f"A text block has text={shown(words)}: give a string.")
    return words


def insert_system_message(messages: Sequence[BaseMessage], instruction: str) -> list[BaseMessage]:
    """The messages with one more system message, after the system messages at their beginning."""
    opening = list(takewhile(lambda message: isinstance(message, SystemMessage), messages))
    return [*opening, SystemMessage(instruction), *messages[len(opening) :]]


def merge(turns: Sequence[Turn]) -> list[Turn]:
    """Join neighboring turns of one role and name, which many templates refuse.

    Turns with tool calls or tool results stay separate.
    """
    merged: list[Turn] = []
    for turn in turns:
        last = merged[-1] if merged else None
        plain = set(turn) <= {"role", "content", "name"} and turn["role"] != "tool"
        if last and plain and {**last, "content": ""} == {**turn, "content": ""}:
            content = "\n\n".join(part for part in (last["content"], turn["content"]) if part)
            merged[-1] = {**last, "content": content}
        else:
            merged.append(turn)
    return merged


def tools_as_text(
    turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]], tool_format: ToolFormat
) -> list[Turn]:
    """The turns for a template without tools: definitions, calls and results become text."""
    definitions: list[Turn] = (
        [{"role": "system", "content": tool_instructions(tools, tool_format)}] if tools else []
    )
    first = bool(turns) and turns[0]["role"] == "system"
    return [*turns[:first], *definitions, *(_written_out(turn, tool_format) for turn in turns[first:])]


def _written_out(turn: Turn, tool_format: ToolFormat) -> Turn:
    if turn["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{turn['content']}\n</tool_response>"}
    if "tool_calls" not in turn:
        return turn
    functions = [call["function"] for call in turn["tool_calls"]]
    calls = tool_format.render([(function["name"], function["arguments"]) for function in functions])
    rest = {key: value for key, value in turn.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(part for part in (turn["content"], calls) if part)}


def _short_ids(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with call ids of nine letters and digits, which Mistral's templates require."""

    def short(call_id: str | None) -> str:
        text = call_id or ""
        return text if re.fullmatch("[a-zA-Z0-9]{9}", text) else sha256(text.encode()).hexdigest()[:9]

    shortened = []
    for turn in turns:
        copied = dict(turn)
        if "tool_calls" in turn:
            copied["tool_calls"] = [{**call, "id": short(call["id"])} for call in turn["tool_calls"]]
        if "tool_call_id" in turn:
            copied["tool_call_id"] = short(turn["tool_call_id"])
        shortened.append(copied)
    return shortened


# Simplifications for templates that refuse the turns; each one is applied to the result of the one before


def _bare(turns: Sequence[Turn]) -> list[Turn]:
    """Remove names and reasoning, which prevent that turns of one role are joined."""
    bare = [
        turn
        if turn["role"] == "tool"
        else {k: v for k, v in turn.items() if k not in ("name", "reasoning_content")}
        for turn in turns
    ]
    return merge(bare)


def _early_system(turns: Sequence[Turn]) -> list[Turn]:
    """Make user turns of all system turns but a first one."""
    return merge([_as_user(turn) if i else turn for i, turn in enumerate(turns)])


def _single_calls(turns: Sequence[Turn]) -> list[Turn]:
    """Split turns with several calls, each call before its result: Llama 3 refuses several."""
    results = {turn["tool_call_id"]: turn for turn in turns if "tool_call_id" in turn}
    placed: set[str] = set()
    single: list[Turn] = []
    for turn in turns:
        if turn.get("tool_call_id") in placed:
            continue
        calls = turn.get("tool_calls", ())
        if len(calls) < 2:
            single.append(turn)
            continue
        for i, call in enumerate(calls):
            single.append({**turn, "content": "" if i else turn["content"], "tool_calls": [call]})
            if call["id"] in results:
                single.append(results[call["id"]])
                placed.add(call["id"])
    return single


def _no_system(turns: Sequence[Turn]) -> list[Turn]:
    """Make user turns of all system turns."""
    return merge([_as_user(turn) for turn in turns])


def _user_first(turns: Sequence[Turn]) -> list[Turn]:
    """Begin with a user turn, if need be an empty one."""
    opening: list[Turn] = [] if turns[0]["role"] == "user" else [{"role": "user", "content": ""}]
    return [*opening, *turns]


def _as_user(turn: Turn) -> Turn:
    return {**turn, "role": "user"} if turn["role"] == "system" else turn


_SIMPLIFICATIONS: tuple[Callable[[Sequence[Turn]], list[Turn]], ...] = (
    _bare, _early_system, _single_calls, _no_system, _user_first,
)  # fmt: skip
