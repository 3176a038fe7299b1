"""Text to content, reasoning and tool calls, while it arrives."""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Protocol, TypeVar

from langchain_core.utils.json import parse_partial_json

from langchain_eft.chat.tool_formats import END_THINK, THINK, ToolFormat

_SPACE = " \t\r\n"
_CLOSERS = {"{": "}", "[": "]"}
_UNQUOTED = frozenset("-+.0123456789eEtrufalsnINiyt,:" + _SPACE)
"""The characters of JSON outside strings and brackets. Any other character makes the JSON invalid."""
_BETWEEN_CALLS = _SPACE + ",;]}"
"""Characters that may be between two calls after one tag. Models often write a brace too many."""
_CALL_KEYS = frozenset({"name", "arguments", "parameters", "type", "id", "function"})
_NAMED = re.compile(r"\s*([^\s\[\]{}]+)\s*(?:\[CALL_ID\][^\[\]{}]*)?(?:\[ARGS\])?\s*")


@dataclass(frozen=True)
class Content:
    """Text of the answer."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """Text between `<think>` and `</think>`."""

    text: str


@dataclass(frozen=True)
class ToolCallPart:
    """Part of a tool call: id and name in the first part, pieces of the arguments in the later ones.

    Attributes:
        index: Number of the call in the answer, from 0.
        id: The call's id, in its first part; else None.
        name: The tool's name, in the first part; else None. Empty where no name can be read.
        args: The next piece of the arguments' JSON, as generated.
    """

    index: int
    id: str | None
    name: str | None
    args: str


ParsedPart = Content | Reasoning | ToolCallPart
"""What a parser makes of a piece of text."""


class Parser(Protocol):
    """Reads one answer while it arrives."""

    def feed(self, text: str) -> list[ParsedPart]:
        """Add text. Returns the parts that it completes."""
        ...

    def flush(self, *, cut: bool = False) -> list[ParsedPart]:
        """End the answer. Returns the parts that are left.

        Args:
            cut: Whether the answer ends because it has reached `max_tokens`.
        """
        ...


_Key = type[Content] | type[Reasoning] | ToolCallPart | int
"""What a piece of text belongs to: content, reasoning, the first part of a call, or a call's arguments."""


@dataclass
class _OpenCall:
    """The call that is being read.

    Attributes:
        name: Its name, once it has been read.
        early_arguments: Arguments that came before the name.
        other_members: Further members of the JSON: the arguments, where no key holds them.
        has_arguments: Whether the arguments have begun.
        complete: Whether the arguments are complete.
        index: Its number, once its first part has been emitted.
        emitted: Length of the call's text when its last part was emitted.
        arguments: The arguments that have been emitted.
    """

    name: str | None = None
    early_arguments: str = ""
    other_members: list[str] = field(default_factory=list)
    has_arguments: bool = False
    complete: bool = False
    index: int | None = None
    emitted: int = 0
    arguments: str = ""


# Readers are generators. A reader yields to get the next character, so text may arrive in any pieces.
_T = TypeVar("_T")
_Reader = Generator[None, None, _T]


class OutputParser:
    """Splits one answer into parts. It never raises and never loses text.

    A call that cannot be read keeps its text in the arguments, and LangChain lists it as an invalid call. So
    does a call in which the answer ends. If it has no readable name, the name is empty and the arguments hold
    the whole text with its tags.

    White space around calls and reasoning is dropped. So are members of a call's JSON besides its name and
    arguments. An answer without calls and reasoning stays unchanged.

    Args:
        tool_format: The format of calls.
        tools: Whether to read calls.
        reasoning: Whether to read `<think>...</think>`.
        forced: Whether the answer can only be calls: a JSON object without tags is then one too.
        thinking: Whether the prompt has opened the reasoning already.
    """

    def __init__(
        self,
        tool_format: ToolFormat,
        *,
        tools: bool,
        reasoning: bool,
        forced: bool = False,
        thinking: bool = False,
    ) -> None:
        self._format = tool_format
        self._opens = tool_format.opens if tools else ()
        self._thinks = (THINK,) if reasoning else ()
        self._untagged = tools and (tool_format.untagged or forced)
        self._forced = forced
        self._thinking = thinking and reasoning
        self._char = ""  # the next unread character; empty at the end of the answer
        self._raw = ""  # text of the current call so far, from its tag on
        self._calls = 0
        self._cut = False
        self._call = _OpenCall()
        self._emitted: list[tuple[_Key, str]] = []
        self._reader = self._read()
        next(self._reader)

    def feed(self, text: str) -> list[ParsedPart]:
        """Add text. Returns the parts that it completes; text that may still become a tag is held back."""
        for char in text:
            self._char = char
            next(self._reader, None)
        return self._take()

    def flush(self, *, cut: bool = False) -> list[ParsedPart]:
        """End the answer. Returns the parts that are left.

        Args:
            cut: Whether the answer ends because it has reached `max_tokens`.
        """
        self._char, self._cut = "", cut
        next(self._reader, None)
        return self._take()

    def _take(self) -> list[ParsedPart]:
        """The parts emitted since the last time, neighbors of one kind joined."""
        emitted, self._emitted = self._emitted, []
        runs = itertools.groupby(emitted, key=itemgetter(0))
        return [_part(key, "".join(text for _, text in run)) for key, run in runs]

    def _read(self) -> _Reader[None]:
        """Read the whole answer."""
        yield
        tag = THINK if self._thinking else ""
        strip, brace, close = False, self._untagged, ""
        while True:
            if tag == THINK:
                yield from self._until((END_THINK,), Reasoning, strip=True)
                strip, close = True, ""
            elif tag:
                called = yield from self._region(tag)
                strip, brace, close = called, False, self._format.closes if called else ""
            tags = (*self._opens, *self._thinks)
            tag = yield from self._until(tags, Content, strip=strip, brace=brace, close=close)
            if not tag:
                return

    def _step(self) -> _Reader[None]:
        """Read one character of a call."""
        if self._char:
            self._raw += self._char
            yield

    def _space(self, chars: str = _SPACE) -> _Reader[None]:
        while self._char and self._char in chars:
            yield from self._step()

    # Text

    def _until(
        self,
        tags: tuple[str, ...],
        kind: type[Content] | type[Reasoning],
        *,
        strip: bool,
        brace: bool = False,
        close: str = "",
    ) -> _Reader[str]:
        """Emit text up to one of the tags.

        Args:
            tags: The tags that end the text.
            kind: What the text is.
            strip: Drop white space at the beginning.
            brace: Stop before an opening brace at the beginning of the text, and return it.
            close: A tag at the beginning of the text, which is dropped.

        Returns:
            The tag that ended the text; empty at the end of the answer.
        """
        held = ""
        special = {tag[0] for tag in (*tags, close) if tag} | set(_SPACE)
        while self._char:
            if not held and not brace and self._char not in special:
                # The most frequent case by far: text that cannot be part of a tag.
                self._emit(kind, self._char)
                strip, close = False, ""
                yield
                continue
            if brace and self._char == "{" and not held.strip():
                self._raw = held
                return "{"
            held += self._char
            yield
            if strip:
                held = held.lstrip()
            if close and held == close:
                held = ""
            tag = next((tag for tag in tags if held.endswith(tag)), "")
            if tag:
                self._emit(kind, held.removesuffix(tag).rstrip())
                self._raw = tag
                return tag
            keep = _partial((*tags, close), held)
            text = held[: len(held) - keep].rstrip()
            if text:
                self._emit(kind, text)
                held, strip, brace, close = held[len(text) :], False, False, ""
        self._emit(kind, held if kind is Content else held.rstrip())
        return ""

    def _emit(self, kind: type[Content] | type[Reasoning], text: str) -> None:
        if text:
            self._emitted.append((kind, text))

    # Calls

    def _region(self, tag: str) -> _Reader[bool]:
        """Read the calls after a tag, or from an opening brace on.

        Returns:
            Whether there were calls, valid or not. JSON without a tag that is not a call becomes content.
        """
        tagged, calls = tag != "{", 0
        if tagged:
            yield from self._space(_SPACE + "[")
        while self._char == "{" or (self._format.name == "mistral" and self._char and not calls):
            self._call = _OpenCall()
            if self._char == "{":
                whole = yield from self._members(sure=tagged or self._forced)
            else:
                whole = yield from self._named()
            if self._call.index is None and not tagged:
                self._emit(Content, self._raw)
                return False
            if self._call.index is None or not whole:
                yield from self._invalid()
                return True
            calls += 1
            yield from self._space(_BETWEEN_CALLS)
            self._raw = tag if tagged else ""
        if not calls:
            self._call = _OpenCall()
            yield from self._invalid()
        return True

    def _members(self, *, sure: bool) -> _Reader[bool]:
        """Read one JSON object as a call.

        Args:
            sure: Emit the call once its name has been read. Otherwise arguments are needed too, and a key
                that no call has ends the reading.

        Returns:
            Whether the object is complete.
        """
        call = self._call
        yield from self._step()
        while True:
            yield from self._space(_SPACE + ",")
            if self._char == "}":
                yield from self._step()
                if call.other_members and not call.has_arguments:
                    self._emit_arguments(f"{{{', '.join(call.other_members)}}}")
                return True
            key = yield from self._string()
            yield from self._space()
            if key is None or self._char != ":" or not (sure or key in _CALL_KEYS):
                return False
            yield from self._step()
            yield from self._space()
            if key in ("arguments", "parameters"):
                call.has_arguments = True
                if call.name is not None:
                    self._begin(call.name)
                whole = yield from self._arguments()
            elif key == "name" and self._char == '"':
                call.name = (yield from self._string()) or None
                whole = call.name is not None
                if call.name is not None and (sure or call.has_arguments):
                    self._begin(call.name)
            elif key == "function" and self._char == "{":
                whole = yield from self._members(sure=sure)
            else:
                pieces: list[str] = []
                whole = yield from self._value(pieces.append)
                if key not in _CALL_KEYS:
                    call.other_members.append(f"{json.dumps(key, ensure_ascii=False)}: {''.join(pieces)}")
            if not whole:
                return False

    def _named(self) -> _Reader[bool]:
        """Read a name and its arguments in Mistral's newer format. Returns whether they are complete."""
        start = len(self._raw)
        while self._char and self._char != "{":
            yield from self._step()
        head = _NAMED.fullmatch(self._raw[start:])
        if not head or not self._char:
            return False
        self._begin(head[1])
        return (yield from self._arguments())

    def _arguments(self) -> _Reader[bool]:
        """Read the arguments, and emit them piece by piece once the name has been read.

        Returns:
            Whether they are complete.
        """
        pieces: list[str] = []
        streamed = self._call.index is not None and self._char in _CLOSERS
        whole = yield from self._value(self._emit_arguments if streamed else pieces.append)
        if not whole:
            return False
        self._call.complete = True
        text = "".join(pieces)
        if text.startswith('"'):
            text = _unquoted(text)
        if self._call.index is None:
            self._call.early_arguments = "" if text == "null" else text
        else:
            self._emit_arguments("" if text == "null" else text)
        return True

    def _value(self, emit: Callable[[str], None]) -> _Reader[bool]:
        """Read one JSON value.

        Args:
            emit: Receives each of its characters.

        Returns:
            Whether the value is complete.
        """
        stack: list[str] = []
        quoted = escaped = begun = False
        while self._char:
            char = self._char
            if quoted:
                quoted = escaped or char != '"'
                escaped = char == "\\" and not escaped
            elif not stack and char in _SPACE + ",]}":
                return begun
            elif char == '"':
                quoted = True
            elif char in _CLOSERS:
                stack.append(_CLOSERS[char])
            elif char in "]}":
                if stack.pop() != char:
                    return False
            elif char not in _UNQUOTED:
                return False
            begun = True
            self._raw += char
            emit(char)
            yield
            if not stack and not quoted and char in '"]}':
                return True
        return False

    def _string(self) -> _Reader[str | None]:
        """Read one JSON string. Returns its value; None where there is no complete string."""
        pieces: list[str] = []
        whole = self._char == '"' and (yield from self._value(pieces.append))
        return _unquoted("".join(pieces)) if whole else None

    def _invalid(self) -> _Reader[None]:
        """Read the rest of an invalid call, up to its closing tag, into the arguments."""
        call, closes = self._call, self._format.closes
        while self._char and not (closes and self._raw.endswith(closes)):
            yield from self._step()
        if call.index is None:
            self._begin("")
            self._emit_arguments(self._raw.strip())
        else:
            rest = self._raw[call.emitted :].removesuffix(closes)
            self._emit_arguments(rest.strip(_BETWEEN_CALLS if call.complete else _SPACE))
        closed = closes and self._raw.endswith(closes) and not self._cut
        if not (call.complete or closed):
            self._emit_arguments(bar_completion(call.arguments))

    def _begin(self, name: str) -> None:
        """Emit the first part of a call, and arguments that came before its name."""
        call = self._call
        if call.index is None:
            call.index, self._calls = self._calls, self._calls + 1
            self._emitted.append((ToolCallPart(call.index, call_id(), name, ""), ""))
            self._emit_arguments(call.early_arguments)

    def _emit_arguments(self, text: str) -> None:
        call = self._call
        call.emitted = len(self._raw)
        if text and call.index is not None:
            call.arguments += text
            self._emitted.append((call.index, text))


def bar_completion(arguments: str) -> str:
    """What to write after unfinished arguments: LangChain would close their brackets and take them for whole.

    Returns:
        A bracket that closes none of the open ones, after the end of an open string; empty where LangChain
        lists the call as invalid anyway.
    """
    barriers = ("", "]", "}", '"]', '"}', '""]', '""}')
    return next(barrier for barrier in barriers if not _completed(arguments + barrier))


def _completed(arguments: str) -> bool:
    """Whether LangChain makes an object of arguments, which it does of no arguments too."""
    try:
        return not arguments or isinstance(parse_partial_json(arguments), dict)
    except ValueError:
        return False


def call_id() -> str:
    """A new unique id of a tool call."""
    return f"call_{secrets.token_hex(12)}"


def _part(key: _Key, text: str) -> ParsedPart:
    if isinstance(key, ToolCallPart):
        return key
    return ToolCallPart(key, None, None, text) if isinstance(key, int) else key(text)


def _unquoted(text: str) -> str:
    """The value of a JSON string; the text itself where it is not one."""
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text


def _partial(tags: Sequence[str], text: str) -> int:
    """Length of the longest end of the text that is the beginning of a tag."""
    longest = min(max(map(len, tags), default=1) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if any(t.startswith(text[-n:]) for t in tags)), 0)
