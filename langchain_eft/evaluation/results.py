"""Results of an evaluation: scores of every system, task and metric with intervals, and tables of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Self

from langchain_eft.evaluation.cases import Answer, Score, Scorer, add_usage
from langchain_eft.evaluation.errors import EvaluationError
from langchain_eft.evaluation.judges import Preference
from langchain_eft.evaluation.statistics import Estimate, difference, estimate, normalized_gain, share


@dataclass(frozen=True)
class GradedAnswer:
    """One answer with its score.

    Attributes:
        case: Name of the case.
        question: Text of the last message.
        answer: The system's answer.
        score: Its score.
    """

    case: str
    question: str
    answer: Answer
    score: Score


@dataclass(frozen=True)
class Cell:
    """The scores of one system on one task by one metric.

    Attributes:
        system: Name of the system.
        task: Name of the task.
        metric: Name of the scorer.
        unit: Unit of the metric.
        higher_is_better: Whether higher scores are better.
        estimate: The mean over the cases; None where no answer has a score.
        values: Mean score of each case over its samples; None where there is no score.
        cases: Names of the cases.
        graded: Every answer with its score, in the order of the cases.
        answer_usage: Token counts of the answers.
        grade_usage: Token counts of the scoring.
    """

    system: str
    task: str
    metric: str
    unit: str
    higher_is_better: bool | None
    estimate: Estimate | None
    values: tuple[float | None, ...]
    cases: tuple[str, ...]
    graded: tuple[GradedAnswer, ...]
    answer_usage: dict[str, int]
    grade_usage: dict[str, int]

    @classmethod
    def of(
        cls,
        system: str,
        task: str,
        scorer: Scorer,
        graded: Sequence[GradedAnswer],
        confidence: float,
        seed: int,
    ) -> Self:
        """The cell of graded answers, which are in the order of the cases."""
        names, values = [], []
        for name, group in groupby(graded, lambda each: each.case):
            scores = [each.score.value for each in group if each.score.value is not None]
            names.append(name)
            values.append(sum(scores) / len(scores) if scores else None)
        scored = [value for value in values if value is not None]
        return cls(
            system,
            task,
            scorer.name,
            scorer.unit,
            scorer.higher_is_better,
            estimate(scored, confidence=confidence, seed=seed) if scored else None,
            tuple(values),
            tuple(names),
            tuple(graded),
            add_usage([each.answer.usage for each in graded]),
            add_usage([each.score.usage for each in graded]),
        )

    @property
    def unscored(self) -> int:
        """Cases without a score."""
        return sum(value is None for value in self.values)

    def shown(self) -> str:
        """The estimate as tables show it: `38.2 % (32.4-44.4)`."""
        return "-" if self.estimate is None else show(self.estimate, self.unit)


@dataclass(frozen=True)
class SystemComparison:
    """Two systems, compared by a judge.

    Attributes:
        first: Name of the first system.
        second: Name of the second system.
        task: Name of the task.
        rubric: Name of the rubric.
        win_rate: Wins of the first plus half the ties, as a share.
        wins: Cases that the first system won.
        ties: Cases without a winner, contradicting verdicts included.
        losses: Cases that the second system won.
        consistency: Share of the cases where both orders gave the same verdict.
        unread: Cases where the judge's reply could not be read.
        cases: Names of the cases.
        preferences: The judge's preference in each case.
        usage: Token counts of the judge.
    """

    first: str
    second: str
    task: str
    rubric: str
    win_rate: Estimate
    wins: int
    ties: int
    losses: int
    consistency: Estimate
    unread: int
    cases: tuple[str, ...]
    preferences: tuple[Preference, ...]
    usage: dict[str, int]

    @classmethod
    def of(
        cls,
        first: str,
        second: str,
        task: str,
        rubric: str,
        cases: Sequence[str],
        preferences: Sequence[Preference],
        confidence: float,
        seed: int,
    ) -> Self:
        """The comparison that a judge's preferences make.

        Raises:
            EvaluationError: No reply of the judge could be read.
        """
        read = [preference for preference in preferences if preference.value is not None]
        values = [preference.value for preference in read if preference.value is not None]
        if not values:
            raise EvaluationError(
                f"The judge could not be understood in any of {len(preferences)} cases, first: "
                f"{preferences[0].reasons[0]}. Use a stronger judge."
            )
        consistent = sum(preference.consistent for preference in read)
        return cls(
            first,
            second,
            task,
            rubric,
            estimate(values, confidence=confidence, seed=seed),
            values.count(1.0),
            values.count(0.5),
            values.count(0.0),
            share(consistent, len(read), confidence=confidence),
            len(preferences) - len(read),
            tuple(cases),
            tuple(preferences),
            add_usage([preference.usage for preference in preferences]),
        )

    def __str__(self) -> str:
        return (
            f"{self.first} against {self.second} ({self.rubric}, {self.task}): "
            f"wins {show(self.win_rate, 'share')}, "
            f"{self.wins} won, {self.ties} tied, {self.losses} lost; both orders agree in "
            f"{show(self.consistency, 'share')}"
        )


@dataclass(frozen=True)
class Evaluation:
    """The scores of all systems on all tasks.

    Attributes:
        cells: One for each system, task and metric.
        confidence: Confidence level of the intervals.
        seed: Seed of the bootstrap.
    """

    cells: tuple[Cell, ...]
    confidence: float
    seed: int

    def cell(self, system: str, task: str, metric: str | None = None) -> Cell:
        """The cell of a system, task and metric. The default is the first metric of the task.

        Raises:
            EvaluationError: There is no such cell.
        """
        for cell in self.cells:
            if (cell.system, cell.task) == (system, task) and metric in (None, cell.metric):
                return cell
        measured = sorted({(cell.system, cell.task, cell.metric) for cell in self.cells})
        raise EvaluationError(f"Nothing was measured for {(system, task, metric)}: use one of {measured}.")

    def difference(self, first: str, second: str, task: str, metric: str | None = None) -> Estimate:
        """Score of the first system minus score of the second, on the cases where both have a score."""
        columns = self._aligned([first, second], task, metric)
        return difference(columns[0], columns[1], confidence=self.confidence, seed=self.seed)

    def gain(self, system: str, low: str, high: str, task: str, metric: str | None = None) -> Estimate:
        """Share of the gap from `low` to `high` that a system closes."""
        columns = self._aligned([system, low, high], task, metric)
        return normalized_gain(*columns, confidence=self.confidence, seed=self.seed)

    def _aligned(self, systems: Sequence[str], task: str, metric: str | None) -> list[list[float]]:
        cells = [self.cell(system, task, metric) for system in systems]
        if len({cell.cases for cell in cells}) > 1:
            raise EvaluationError(f"The systems {list(systems)} answered different cases of {task!r}.")
        rows = zip(*(cell.values for cell in cells), strict=True)
        kept = [row for row in rows if None not in row]
        return [[float(value) for value in column if value is not None] for column in zip(*kept, strict=True)]

    def to_markdown(self) -> str:
        """A table: a row for each system, a column for each task and metric."""
        columns = list(dict.fromkeys((cell.task, cell.metric) for cell in self.cells))
        return markdown(
            ["system", *(f"{task}: {metric}" for task, metric in columns)],
            [
                [system, *(self.cell(system, task, metric).shown() for task, metric in columns)]
                for system in dict.fromkeys(cell.system for cell in self.cells)
            ],
        )

    def to_json(self, *, answers: bool = True) -> str:
        """Everything as JSON. Infinite bounds are null.

        Args:
            answers: Include every answer, once, with its scores by all metrics.
        """
        cells = [
            {name: value for name, value in asdict(cell).items() if name != "graded"}
            | {"unscored": cell.unscored}
            for cell in self.cells
        ]
        report = {"confidence": self.confidence, "seed": self.seed, "cells": cells}
        if answers:
            report["answers"] = list(self._answers())
        return json.dumps(finite(report), indent=1, ensure_ascii=False)

    def _answers(self) -> Iterator[dict[str, Any]]:
        for (system, task), group in groupby(self.cells, lambda cell: (cell.system, cell.task)):
            columns = list(group)
            for row in zip(*(cell.graded for cell in columns), strict=True):
                scores = [
                    {"metric": cell.metric, **asdict(each.score)}
                    for cell, each in zip(columns, row, strict=True)
                ]
                answer = {name: value for name, value in asdict(row[0]).items() if name != "score"}
                yield {"system": system, "task": task, **answer, "scores": scores}


def show(number: Estimate, unit: str) -> str:
    """An estimate with its interval in a unit."""
    if unit in ("share", "%"):
        scaled = number.scaled(100) if unit == "share" else number
        return f"{scaled.value:.1f} % ({_bound(scaled.low)}-{_bound(scaled.high)})"
    return f"{number.value:.4g} {unit} ({_bound(number.low)}-{_bound(number.high)})".replace("  ", " ")


def _bound(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "?"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table. All columns but the first are aligned as numbers."""
    rule = ["---", *(["---:"] * (len(header) - 1))]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, rule, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def finite(value: Any) -> Any:
    """The value with null for infinities, which are not part of JSON."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
