"""Tasks: the built-in ones, and tasks from a JSONL file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.messages.utils import convert_to_messages

from langchain_eft.engine.error_text import did_you_mean, quoted_names
from langchain_eft.evaluation.cases import Answer, Case, Scorer
from langchain_eft.evaluation.errors import EvaluationError
from langchain_eft.evaluation.facts import capital_cases
from langchain_eft.evaluation.instructions import FollowsInstructions, check_names, instruction_cases
from langchain_eft.evaluation.preferences import PrefersChosen, compare_likelihoods
from langchain_eft.evaluation.systems import System
from langchain_eft.evaluation.text_scorers import Length, Mentions, Refuses
from langchain_eft.evaluation.tool_calls import CallsExactly, tool_call_cases
from langchain_eft.jsonl import parse_line, split_lines

Ask = Callable[[System, Case, int | None, int | None], Answer]
"""How a system is asked: system, case, longest answer and seed."""


@dataclass(frozen=True)
class Task:
    """Cases, and how their answers are scored.

    Attributes:
        name: Name in tables, unique within an evaluation.
        cases: The cases.
        scorers: The metrics. Each scorer is a column of the table.
        max_tokens: Longest answer in tokens; None leaves it to the system.
        ask: How a system is asked.
    """

    name: str
    cases: tuple[Case, ...]
    scorers: tuple[Scorer, ...]
    max_tokens: int | None = None
    ask: Ask = System.answer

    def limited(self, count: int | None, seed: int | None = None) -> Task:
        """The task with its first `count` cases.

        Args:
            count: Number of cases; None keeps all.
            seed: Shuffles the cases first. With the same seed, a smaller task is part of a larger one.

        Raises:
            EvaluationError: `count` is below 1.
        """
        if count is None or count >= len(self.cases):
            return self
        if count < 1:
            raise EvaluationError(f"The number of cases of {self.name!r} must be at least 1, got {count}.")
        order = list(self.cases)
        if seed is not None:
            random.Random(seed).shuffle(order)
        return replace(self, cases=tuple(order[:count]))

    def with_scorers(self, *scorers: Scorer) -> Task:
        """The task with further scorers, such as judges."""
        return replace(self, scorers=(*self.scorers, *scorers))

    @property
    def generates(self) -> bool:
        """Whether systems write answers that judges can read."""
        return self.ask is System.answer


def capitals() -> Task:
    """The capitals of 246 countries: correct if named in the first 300 characters."""
    return Task("capitals", tuple(capital_cases()), (Mentions(), Length()), max_tokens=60)


def tool_calls(count: int = 256, seed: int = 0) -> Task:
    """Calls of generated tools: correct if exact."""
    return Task("tool-calls", tuple(tool_call_cases(count, seed)), (CallsExactly(),), max_tokens=120)


def harmful() -> Task:
    """40 requests to do harm: the share refused."""
    return replace(_built_in("harmful", max_tokens=40), scorers=(Refuses(),))


def benign() -> Task:
    """64 harmless requests, half of which sound harmful: the share refused (over-refusal)."""
    return replace(_built_in("benign", max_tokens=40), scorers=(_OVER_REFUSES,))


def disguised() -> Task:
    """50 requests to do harm in stories, roles and long introductions: the share refused."""
    return replace(_built_in("disguised", max_tokens=40), scorers=(Refuses(),))


def look_alikes() -> Task:
    """60 harmless requests that sound harmful, in many forms: the share refused (over-refusal).

    Their kinds are those of XSTest (Röttger et al. 2023): other senses of words, figures of speech, safe
    targets and contexts, definitions, history and fiction.
    """
    return replace(_built_in("look-alikes", max_tokens=40), scorers=(_OVER_REFUSES,))


def instructions(seed: int = 0) -> Task:
    """120 instructions that a program can check."""
    return Task("instructions", tuple(instruction_cases(seed)), (FollowsInstructions(),), max_tokens=160)


def preferences() -> Task:
    """24 pairs of answers: does the mixture's implicit reward prefer the better one?"""
    return _built_in("preferences")


def _built_in(name: str, *, max_tokens: int | None = None) -> Task:
    return load_task(Path(__file__).parent / "data" / f"{name}.jsonl", max_tokens=max_tokens)


BUILT_IN: Mapping[str, Callable[..., Task]] = {
    "capitals": capitals,
    "tool-calls": tool_calls,
    "harmful": harmful,
    "benign": benign,
    "disguised": disguised,
    "look-alikes": look_alikes,
    "instructions": instructions,
    "preferences": preferences,
}
"""The built-in tasks by their names on the command line."""

_OVER_REFUSES = Refuses("over-refused", higher_is_better=False)


# Tasks from files


@dataclass(frozen=True)
class _Kind:
    """A kind of task, which the keys of its rows determine."""

    keys: frozenset[str]
    expected: Callable[[dict[str, Any]], Any]
    scorers: tuple[Scorer, ...]
    ask: Ask = System.answer


def _pair(row: dict[str, Any]) -> dict[str, str]:
    return {"chosen": str(row["chosen"]), "rejected": str(row["rejected"])}


def _checks(row: dict[str, Any]) -> Any:
    check_names(row["instructions"])
    return row["instructions"]


_KINDS = (
    _Kind(frozenset({"expected"}), lambda row: row["expected"], (Mentions(),)),
    _Kind(frozenset({"tools", "tool_calls"}), lambda row: row["tool_calls"], (CallsExactly(),)),
    _Kind(frozenset({"instructions"}), _checks, (FollowsInstructions(),)),
    _Kind(frozenset({"chosen", "rejected"}), _pair, (PrefersChosen(),), compare_likelihoods),
    _Kind(frozenset({"refuse"}), lambda row: row["refuse"], (Refuses(higher_is_better=None),)),
    _Kind(frozenset(), lambda _: None, (Length(),)),
)


def load_task(file: Path | str, *, max_tokens: int | None = None) -> Task:
    """A task from a JSONL file with one case a line.

    Every line has a `prompt` (text, or a list of messages) and may have a `name`. The other keys determine
    the metric:

    - `expected`: a fact that the answer has to name, or a list of facts of which it has to name one.
    - `tools` and `tool_calls` (`[{"name": ..., "args": ...}]`): exact calls.
    - `instructions`: checks, see `instructions.CHECKS`.
    - `refuse` (true or false): the share of refusals.
    - `chosen` and `rejected`: preferences.
    - No other key: the length. Add a judge for more.

    Args:
        file: The file.
        max_tokens: Longest answer, in tokens.

    Raises:
        EvaluationError: A file that cannot be read, or lines of different or unknown kinds.
    """
    path = Path(file)
    rows = list(_rows(path))
    kind = _kind(path, rows[0])
    cases = []
    for number, row in enumerate(rows, 1):
        if _kind(path, row) is not kind:
            raise EvaluationError(
                f"{path}: line {number} is of another kind than line 1: put them in two files."
            )
        cases.append(
            Case(
                str(row.get("name", number)),
                tuple(convert_to_messages(_messages(row["prompt"]))),
                kind.expected(row),
                tuple(row.get("tools", ())),
            )
        )
    names = [case.name for case in cases]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise EvaluationError(f"{path}: two lines have the name {repeated!r}: give every line its own name.")
    return Task(path.stem, tuple(cases), kind.scorers, max_tokens, kind.ask)


def _messages(prompt: Any) -> list[Any]:
    return [HumanMessage(prompt)] if isinstance(prompt, str) else list(prompt)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = split_lines(path.read_bytes())
    except OSError as error:
        raise EvaluationError(
            f"The task {str(path)!r} is neither built in nor a file that can be read ({error.strerror})."
            f"{did_you_mean([str(path)], BUILT_IN)} Give a JSONL file, or one of {quoted_names(BUILT_IN)}."
        ) from error
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not filled:
        raise EvaluationError(f"The task {str(path)!r} is empty: write one JSON object a line.")
    for number, line in filled:
        try:
            row = parse_line(line)
        except ValueError as error:
            raise EvaluationError(
                f"{path}: line {number} is not readable JSON ({error}): write one JSON object a line."
            ) from error
        if not isinstance(row, dict) or "prompt" not in row:
            raise EvaluationError(f'{path}: line {number} has no \'prompt\': write {{"prompt": "..."}}.')
        yield row


def _kind(path: Path, row: Mapping[str, Any]) -> _Kind:
    keys = frozenset(row) - {"prompt", "name"}
    for kind in _KINDS:
        if kind.keys == keys:
            return kind
    kinds = " or ".join(", ".join(sorted(kind.keys)) for kind in _KINDS if kind.keys)
    raise EvaluationError(
        f"{path}: a line with {sorted(keys)} is not of any kind of task: besides 'prompt' and 'name' write "
        f"{kinds}, or nothing."
    )
