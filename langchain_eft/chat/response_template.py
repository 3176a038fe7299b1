"""Text to content, reasoning and tool calls, by the tokenizer's own response template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_eft.chat.output_parser import (
    Content,
    ParsedPart,
    Reasoning,
    ToolCallPart,
    bar_completion,
    call_id,
)
from langchain_eft.chat.tool_formats import response_template

_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Names of the field of reasoning in response templates."""


class ResponseTemplateParser:
    """Splits one answer into the parts that transformers reads in it, as `OutputParser` does.

    A call comes as a whole when it ends: its text is not JSON, so no piece of it is either. Text that the
    template cannot read becomes an invalid call, and so does a call that `max_tokens` has cut. White space
    around content is dropped.

    Args:
        tokenizer: A transformers tokenizer with a response template.
        prompt: Text of the prompt, whose end may have begun the answer.
        tools: OpenAI tool dictionaries, for the types of arguments. Without tools, calls stay text.
    """

    def __init__(self, tokenizer: Any, prompt: str, tools: Sequence[Mapping[str, Any]]) -> None:
        self._parser = tokenizer.get_response_parser(prefix=prompt, tools=list(tools))
        self._tools = bool(tools)
        self._pending = ""  # text that no part has shown yet
        self._space = ""  # white space at the end of the last part, kept until more text follows
        self._began = False
        self._calls = 0
        self._cut = False
        self._broken = False

    def feed(self, text: str) -> list[ParsedPart]:
        """Add text. Returns the parts that it completes; text that may still become a tag is held back."""
        return [part for char in text for part in self._read(char)]

    def flush(self, *, cut: bool = False) -> list[ParsedPart]:
        """End the answer. Returns the parts that are left.

        Args:
            cut: Whether the answer ends because it has reached `max_tokens`.
        """
        self._cut = cut
        return list(self._read(""))

    def _read(self, char: str) -> Iterator[ParsedPart]:
        self._pending += char
        if self._broken:
            return self._rest(char)
        try:
            events = self._parser.feed(char) if char else self._parser.finalize()[1]
        except Exception:  # noqa: BLE001 - content parsers may raise anything
            self._broken = True
            return self._rest(char)
        return (part for event in events for part in self._parts(event))

    def _rest(self, char: str) -> Iterator[ParsedPart]:
        """After text that cannot be read, everything becomes one invalid call at the end of the answer."""
        if not char and self._pending:
            yield from self._invalid_call()

    def _parts(self, event: Mapping[str, Any]) -> Iterator[ParsedPart]:
        is_text = event["field"] == "content" or event["field"] in _REASONING
        if event["type"] == "region_open":
            self._space, self._began = "", False
        elif event["type"] == "region_chunk" and (is_text or not self._tools):
            yield from self._text(Reasoning if event["field"] in _REASONING else Content, event["text"])
        elif event["type"] == "region_close":
            if not is_text and self._tools:
                value = None if self._cut else event["value"]  # only the end of the answer has closed it
                for call in value if isinstance(value, list) else [value]:
                    yield from self._parsed_call(call)
            self._pending = ""

    def _text(self, kind: type[Content] | type[Reasoning], text: str) -> Iterator[ParsedPart]:
        self._pending = self._pending.removeprefix(text)
        whole = self._space + text if self._began else text.lstrip()
        stripped = whole.rstrip()
        self._space = whole[len(stripped) :]
        if stripped:
            self._began = True
            yield kind(stripped)

    def _parsed_call(self, call: Any) -> Iterator[ParsedPart]:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            yield from self._invalid_call()
            return
        arguments = function.get("arguments") or {}
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        yield from self._call(function["name"], text)

    def _invalid_call(self) -> Iterator[ParsedPart]:
        text = self._pending.strip()
        return self._call("", text + bar_completion(text))

    def _call(self, name: str, arguments: str) -> Iterator[ParsedPart]:
        index, self._calls = self._calls, self._calls + 1
        yield ToolCallPart(index, call_id(), name, "")
        yield ToolCallPart(index, None, None, arguments)


def template_tokens(tokenizer: Any) -> frozenset[int]:
    """Ids of the special tokens in the tokenizer's response template, which the text has to contain."""
    spec = "\n".join(_strings(response_template(tokenizer)))
    return frozenset(
        i
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.special and (token.content in spec or re.escape(token.content) in spec)
    )


def _strings(spec: Any) -> Iterator[str]:
    if isinstance(spec, str):
        yield spec
    elif isinstance(spec, Mapping):
        yield from (text for value in spec.values() for text in _strings(value))
    elif isinstance(spec, list):
        yield from (text for value in spec for text in _strings(value))
