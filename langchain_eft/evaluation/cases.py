"""What is asked, what came back, and what it is worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage, messages_to_dict


def digest(*parts: Any) -> str:
    """A short hash of anything that JSON can hold; what it cannot hold counts by its text."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Case:
    """One prompt of a task.

    Attributes:
        name: Unique within its task.
        messages: The conversation up to where the system answers.
        expected: What the scorers compare the answer with.
        tools: Tools on offer, in OpenAI's form.
    """

    name: str
    messages: tuple[BaseMessage, ...]
    expected: Any = None
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def question(self) -> str:
        """The last message, which is what a judge is shown first."""
        return str(self.messages[-1].text)

    def key(self) -> str:
        """Hash of what a system sees."""
        return digest([_seen(message) for message in messages_to_dict(self.messages)], self.tools)


def _seen(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": message["type"], "data": {k: v for k, v in message["data"].items() if k != "id"}}


@dataclass(frozen=True)
class Answer:
    """What a system said.

    Attributes:
        text: The answer's text, without tool calls.
        tool_calls: Calls as `{"name": ..., "args": ...}`.
        invalid_tool_calls: Texts of calls that could not be read.
        usage: Tokens, as in LangChain's `usage_metadata`.
        details: Anything else that scorers or reports want to know.
    """

    text: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    invalid_tool_calls: tuple[str, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For the cache."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Answer:
        """From the cache."""
        lists = {name: tuple(stored[name]) for name in ("tool_calls", "invalid_tool_calls")}
        return cls(**{**stored, **lists})


@dataclass(frozen=True)
class Score:
    """What an answer is worth.

    Attributes:
        value: The number; None if there is none, as when a judge's answer cannot be read.
        reason: Why, in words.
        usage: Tokens that the scoring took.
    """

    value: float | None
    reason: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)


class Scorer(Protocol):
    """Turns answers into numbers.

    Attributes:
        name: What the number is called in tables.
        unit: `share` for numbers from 0 to 1 that are shown in percent; else what to write after them.
        higher_is_better: Whether more of it is better; None if it depends on what is wanted.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def higher_is_better(self) -> bool | None: ...  # noqa: D102

    def score(self, case: Case, answer: Answer) -> Score:
        """Score one answer."""
        ...


def token_counts(message: BaseMessage) -> dict[str, int]:
    """The token counts that a message tells."""
    usage: Any = (message.usage_metadata if isinstance(message, AIMessage) else None) or {}
    return {name: count for name, count in usage.items() if isinstance(count, int)}


def add_usage(usages: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Token counts summed."""
    names = ("input_tokens", "output_tokens", "total_tokens")
    return {name: sum(usage.get(name, 0) for usage in usages) for name in names}
