"""Cases, answers and scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage, messages_to_dict


def digest(*parts: Any) -> str:
    """A short hash of values. Values that JSON cannot hold are hashed by their text."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Case:
    """One prompt of a task.

    Attributes:
        name: Unique within its task.
        messages: The conversation that the system answers.
        expected: What scorers compare the answer with.
        tools: Tools that may be called, in OpenAI's form.
    """

    name: str
    messages: tuple[BaseMessage, ...]
    expected: Any = None
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def question(self) -> str:
        """The text of the last message."""
        return str(self.messages[-1].text)

    def key(self) -> str:
        """A hash of what a system reads."""
        return digest([_without_id(message) for message in messages_to_dict(self.messages)], self.tools)


def _without_id(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": message["type"], "data": {k: v for k, v in message["data"].items() if k != "id"}}


@dataclass(frozen=True)
class Answer:
    """The answer of a system.

    Attributes:
        text: The answer's text, without tool calls.
        tool_calls: Calls as `{"name": ..., "args": ...}`.
        invalid_tool_calls: Texts of calls that cannot be read.
        usage: Token counts, as in LangChain's `usage_metadata`.
        details: Further values for scorers and reports.
    """

    text: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    invalid_tool_calls: tuple[str, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Answer:
        """The answer that `dataclasses.asdict` has turned into plain data."""
        lists = {name: tuple(stored[name]) for name in ("tool_calls", "invalid_tool_calls")}
        return cls(**{**stored, **lists})


@dataclass(frozen=True)
class Score:
    """The score of an answer.

    Attributes:
        value: The number; None where there is none, for example when a judge's reply cannot be read.
        reason: The reason in words.
        usage: Token counts of the scoring.
    """

    value: float | None
    reason: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)


class Scorer(Protocol):
    """Turns answers into numbers.

    Attributes:
        name: Name of the metric in tables.
        unit: `share` for numbers from 0 to 1 that tables show in percent; else the unit after the number.
        higher_is_better: Whether higher numbers are better; None where that depends on the purpose.
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
    """The token counts of a message; empty where it has none."""
    usage: Any = (message.usage_metadata if isinstance(message, AIMessage) else None) or {}
    return {name: count for name, count in usage.items() if isinstance(count, int)}


def add_usage(usages: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The sum of token counts."""
    names = ("input_tokens", "output_tokens", "total_tokens")
    return {name: sum(usage.get(name, 0) for usage in usages) for name in names}
