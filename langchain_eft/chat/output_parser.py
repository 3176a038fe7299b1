"""Generated text to content, reasoning and tool calls, as it arrives."""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Protocol, TypeVar

from langchain_eft.chat.tool_formats import END_THINK, THINK, ToolFormat

_SPACE = " \t\r\n"
_CLOSERS = {"{": "}", "[": "]"}
_UNQUOTED = frozenset("-+.0123456789eEtrufalsnINiyt,:" + _SPACE)
"""Characters of JSON outside strings and brackets: any other one means that the JSON is broken."""
_BETWEEN_CALLS = _SPACE + ",;]}"
"""What may stand between two calls after one tag; a surplus brace is a common slip."""
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
class Call:
    """Part of a tool call: its id and name first, with no arguments; then pieces of the arguments.

    Attributes:
        index: Which call of the answer.
        id: The call's id, on its first part.
        name: The tool's name, on the first part; empty where none could be read.
        args: The next piece of the arguments' JSON, as generated.
    """

    index: int
    id: str | None
    name: str | None
    args: str


Delta = Content | Reasoning | Call


class Parser(Protocol):
    """Reads one answer as it arrives."""

    def feed(self, text: str) -> list[Delta]:
        """Add text; returns what it completes."""
        ...

    def flush(self) -> list[Delta]:
        """What is left, once nothing more can follow."""
        ...


_Key = type[Content] | type[Reasoning] | Call | int
"""Where a piece of text belongs: content, reasoning, the beginning of a call, or a call's arguments."""


@dataclass
class _Reading:
    """What is known of the call that is being read.

    Attributes:
        name: Its name, once read.
        early: Arguments that came before the name.
        others: Further members of the JSON: the arguments, where it has no key for them.
        seen: The arguments have begun.
        done: The arguments are complete.
        index: Its number, once it is shown.
        mark: Length of the text read when something of the call was last shown.
    """

    name: str | None = None
    early: str = ""
    others: list[str] = field(default_factory=list)
    seen: bool = False
    done: bool = False
    index: int | None = None
    mark: int = 0


# Every reader is a generator that yields for the next character, so that text may be cut anywhere.
_T = TypeVar("_T")
_Reader = Generator[None, None, _T]


class OutputParser:
    """Splits one answer into deltas. Never raises and never loses text.

    A call that cannot be read keeps its text in the arguments, which LangChain then lists as an invalid call;
    where not even a name can be read, the name is empty and the arguments hold the whole text, tags included.
    White space around calls and reasoning is dropped, and so is what a call's JSON holds beside its name and
    arguments. An answer without either passes through unchanged.

    Args:
        format: How the model spells calls.
        tools: Read calls.
        reasoning: Read `<think>...</think>`.
        forced: The answer is known to be calls: a JSON object is one even without tags.
        thinking: The prompt opened the reasoning already.
    """

    def __init__(
        self,
        format: ToolFormat,  # noqa: A002
        *,
        tools: bool,
        reasoning: bool,
        forced: bool = False,
        thinking: bool = False,
    ) -> None:
        self._format = format
        self._opens = format.opens if tools else ()
        self._thinks = (THINK,) if reasoning else ()
        self._untagged = tools and (format.untagged or forced)
        self._forced = forced
        self._thinking = thinking and reasoning
        self._char = ""  # the next unread character; empty at the end of the answer
        self._raw = ""  # what was read of this call, from its tag on
        self._calls = 0
        self._call = _Reading()
        self._shown: list[tuple[_Key, str]] = []
        self._reader = self._read()
        next(self._reader)

    def feed(self, text: str) -> list[Delta]:
        """Add text; returns what it completes. Nothing that may still become a tag is shown."""
        for char in text:
            self._char = char
            next(self._reader, None)
        return self._take()

    def flush(self) -> list[Delta]:
        """What is left, once nothing more can follow."""
        self._char = ""
        next(self._reader, None)
        return self._take()

    def _take(self) -> list[Delta]:
        shown, self._shown = self._shown, []
        parts = itertools.groupby(shown, key=itemgetter(0))
        return [_delta(key, "".join(text for _, text in part)) for key, part in parts]

    def _read(self) -> _Reader[None]:
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
        """Show text up to one of the tags, and return the tag; empty at the end.

        Args:
            tags: What ends the text.
            kind: What the text is.
            strip: Drop white space at the beginning.
            brace: Stop before an opening brace that begins the text, and return it.
            close: A tag that is dropped as long as no text was shown.
        """
        held = ""
        special = {tag[0] for tag in (*tags, close) if tag} | set(_SPACE)
        while self._char:
            if not held and not brace and self._char not in special:
                # By far the most frequent case: text that cannot be part of a tag.
                self._show(kind, self._char)
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
            found = next((tag for tag in tags if held.endswith(tag)), "")
            if found:
                self._show(kind, held.removesuffix(found).rstrip())
                self._raw = found
                return found
            keep = _partial((*tags, close), held)
            text = held[: len(held) - keep].rstrip()
            if text:
                self._show(kind, text)
                held, strip, brace, close = held[len(text) :], False, False, ""
        self._show(kind, held if kind is Content else held.rstrip())
        return ""

    def _show(self, kind: type[Content] | type[Reasoning], text: str) -> None:
        if text:
            self._shown.append((kind, text))

    # Calls

    def _region(self, tag: str) -> _Reader[bool]:
        """Read the calls after a tag, or from an opening brace on.

        Returns:
            Whether there were calls, readable or not. Without a tag, what is no call is shown as text.
        """
        tagged, calls = tag != "{", 0
        if tagged:
            yield from self._space(_SPACE + "[")
        while self._char == "{" or (self._format.name == "mistral" and self._char and not calls):
            self._call = _Reading()
            if self._char == "{":
                whole = yield from self._members(sure=tagged or self._forced)
            else:
                whole = yield from self._named()
            if self._call.index is None and not tagged:
                self._show(Content, self._raw)
                return False
            if self._call.index is None or not whole:
                yield from self._broken()
                return True
            calls += 1
            yield from self._space(_BETWEEN_CALLS)
            self._raw = tag if tagged else ""
        if not calls:
            self._call = _Reading()
            yield from self._broken()
        return True

    def _members(self, *, sure: bool) -> _Reader[bool]:
        """Read one JSON object as a call. Returns whether it is whole.

        Args:
            sure: Show the call as soon as its name is known; else only beside arguments, and give up at the
                first key that no call has.
        """
        call = self._call
        yield from self._step()
        while True:
            yield from self._space(_SPACE + ",")
            if self._char == "}":
                yield from self._step()
                if call.others and not call.seen:
                    self._argue(f"{{{', '.join(call.others)}}}")
                return True
            key = yield from self._string()
            yield from self._space()
            if key is None or self._char != ":" or not (sure or key in _CALL_KEYS):
                return False
            yield from self._step()
            yield from self._space()
            if key in ("arguments", "parameters"):
                call.seen = True
                if call.name is not None:
                    self._begin(call.name)
                whole = yield from self._arguments()
            elif key == "name" and self._char == '"':
                call.name = (yield from self._string()) or None
                whole = call.name is not None
                if call.name is not None and (sure or call.seen):
                    self._begin(call.name)
            elif key == "function" and self._char == "{":
                whole = yield from self._members(sure=sure)
            else:
                pieces: list[str] = []
                whole = yield from self._value(pieces.append)
                if key not in _CALL_KEYS:
                    call.others.append(f"{json.dumps(key, ensure_ascii=False)}: {''.join(pieces)}")
            if not whole:
                return False

    def _named(self) -> _Reader[bool]:
        """Read a name and its arguments in Mistral's newer spelling. Returns whether they are whole."""
        start = len(self._raw)
        while self._char and self._char != "{":
            yield from self._step()
        head = _NAMED.fullmatch(self._raw[start:])
        if not head or not self._char:
            return False
        self._begin(head[1])
        return (yield from self._arguments())

    def _arguments(self) -> _Reader[bool]:
        """Read the arguments' value, and show it piece by piece where the name is known."""
        pieces: list[str] = []
        streamed = self._call.index is not None and self._char in _CLOSERS
        whole = yield from self._value(self._argue if streamed else pieces.append)
        if not whole:
            return False
        self._call.done = True
        text = "".join(pieces)
        if text.startswith('"'):
            text = _unquoted(text)
        if self._call.index is None:
            self._call.early = "" if text == "null" else text
        else:
            self._argue("" if text == "null" else text)
        return True

    def _value(self, show: Callable[[str], None]) -> _Reader[bool]:
        """Read one JSON value, character by character. Returns whether it is whole."""
        stack: list[str] = []
        quoted = escaped = seen = False
        while self._char:
            char = self._char
            if quoted:
                quoted = escaped or char != '"'
                escaped = char == "\\" and not escaped
            elif not stack and char in _SPACE + ",]}":
                return seen
            elif char == '"':
                quoted = True
            elif char in _CLOSERS:
                stack.append(_CLOSERS[char])
            elif char in "]}":
                if stack.pop() != char:
                    return False
            elif char not in _UNQUOTED:
                return False
            seen = True
            self._raw += char
            show(char)
            yield
            if not stack and not quoted and char in '"]}':
                return True
        return False

    def _string(self) -> _Reader[str | None]:
        """Read one JSON string. Returns it without quotes and escapes; None where there is none."""
        pieces: list[str] = []
        whole = self._char == '"' and (yield from self._value(pieces.append))
        return _unquoted("".join(pieces)) if whole else None

    def _broken(self) -> _Reader[None]:
        """Read the rest of a call that is no JSON, up to its closing tag, into the arguments."""
        call, closes = self._call, self._format.closes
        while self._char and not (closes and self._raw.endswith(closes)):
            yield from self._step()
        if call.index is None:
            self._begin("")
            self._argue(self._raw.strip())
        else:
            rest = self._raw[call.mark :].removesuffix(closes)
            self._argue(rest.strip(_BETWEEN_CALLS if call.done else _SPACE))

    def _begin(self, name: str) -> None:
        """Show a call's name, and the arguments that came before it."""
        call = self._call
        if call.index is None:
            call.index, self._calls = self._calls, self._calls + 1
            self._shown.append((Call(call.index, call_id(), name, ""), ""))
            self._argue(call.early)

    def _argue(self, text: str) -> None:
        call = self._call
        call.mark = len(self._raw)
        if text and call.index is not None:
            self._shown.append((call.index, text))


def call_id() -> str:
    """A name for one call, unlike any other."""
    return f"call_{secrets.token_hex(12)}"


def _delta(key: _Key, text: str) -> Delta:
    if isinstance(key, Call):
        return key
    return Call(key, None, None, text) if isinstance(key, int) else key(text)


def _unquoted(text: str) -> str:
    """A JSON string's value; the text itself where it is none."""
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text


def _partial(tags: Sequence[str], text: str) -> int:
    """Length of the longest end of the text that begins a tag."""
    longest = min(max(map(len, tags), default=1) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if any(t.startswith(text[-n:]) for t in tags)), 0)
