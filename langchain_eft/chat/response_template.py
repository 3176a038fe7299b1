"""Answers read by the tokenizer's own response template, where its spelling of calls is not one of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_eft.chat.output_parser import Call, Content, Delta, Reasoning, call_id
from langchain_eft.chat.tool_formats import response_template

_REASONING = ("reasoning_content", "reasoning", "thinking")
"""What templates call the field of the model's reasoning."""


class ResponseTemplateParser:
    """Splits one answer into deltas, as `OutputParser` does, by what transformers reads in it.

    Calls come whole, when they end: their spelling is not JSON, and so pieces of it would not be either. What
    the template cannot read becomes an invalid call with its text; white space around content is dropped.

    Args:
        tokenizer: Carries a response template.
        prompt: The prompt's text: its end may have begun the answer.
        tools: OpenAI tool dictionaries, for the types of arguments; without any, calls stay text.
    """

    def __init__(self, tokenizer: Any, prompt: str, tools: Sequence[Mapping[str, Any]]) -> None:
        self._parser = tokenizer.get_response_parser(prefix=prompt, tools=list(tools))
        self._tools = bool(tools)
        self._pending = ""  # text that no delta has shown yet
        self._space = ""  # white space at the end of what was shown, kept until more follows
        self._began = False
        self._calls = 0
        self._broken = False

    def feed(self, text: str) -> list[Delta]:
        """Add text; returns what it completes. Nothing that may still become a tag is shown."""
        return [delta for char in text for delta in self._read(char)]

    def flush(self) -> list[Delta]:
        """What is left, once nothing more can follow."""
        return list(self._read(""))

    def _read(self, char: str) -> Iterator[Delta]:
        self._pending += char
        if self._broken:
            return self._rest(char)
        try:
            events = self._parser.feed(char) if char else self._parser.finalize()[1]
        except Exception:  # noqa: BLE001 - templates raise whatever their content parsers do
            self._broken = True
            return self._rest(char)
        return (delta for event in events for delta in self._deltas(event))

    def _rest(self, char: str) -> Iterator[Delta]:
        """What follows something that cannot be read: all of it becomes one invalid call, at the end."""
        if not char and self._pending:
            yield from self._call("", self._pending.strip())

    def _deltas(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        spoken = event["field"] == "content" or event["field"] in _REASONING
        if event["type"] == "region_open":
            self._space, self._began = "", False
        elif event["type"] == "region_chunk" and (spoken or not self._tools):
            yield from self._speech(Reasoning if event["field"] in _REASONING else Content, event["text"])
        elif event["type"] == "region_close":
            if not spoken and self._tools:
                for call in event["value"] if isinstance(event["value"], list) else [event["value"]]:
                    yield from self._called(call)
            self._pending = ""

    def _speech(self, kind: type[Content] | type[Reasoning], text: str) -> Iterator[Delta]:
        self._pending = self._pending.removeprefix(text)
        whole = self._space + text if self._began else text.lstrip()
        shown = whole.rstrip()
        self._space = whole[len(shown) :]
        if shown:
            self._began = True
            yield kind(shown)

    def _called(self, call: Any) -> Iterator[Delta]:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            yield from self._call("", self._pending.strip())
            return
        arguments = function.get("arguments") or {}
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        yield from self._call(function["name"], text)

    def _call(self, name: str, arguments: str) -> Iterator[Delta]:
        index, self._calls = self._calls, self._calls + 1
        yield Call(index, call_id(), name, "")
        yield Call(index, None, None, arguments)


def template_tokens(tokenizer: Any) -> frozenset[int]:
    """Ids of the special tokens that the tokenizer's response template speaks of: text has to show them."""
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
