"""The runner: evaluates every system on every task, in batches, with a cache to resume from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from langchain_core.runnables import Runnable, RunnableLambda
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from langchain_eft.evaluation.cache import Cache
from langchain_eft.evaluation.cases import Answer, Case, Score, Scorer, digest
from langchain_eft.evaluation.errors import EvaluationError
from langchain_eft.evaluation.judges import Pair, PairwiseJudge, Preference, answer_text, conversation
from langchain_eft.evaluation.results import Cell, Evaluation, GradedAnswer, SystemComparison
from langchain_eft.evaluation.systems import System
from langchain_eft.evaluation.tasks import Task

Input = TypeVar("Input")
Output = TypeVar("Output")


@runtime_checkable
class CostlyScorer(Protocol):
    """A scorer whose scores are stored, because they cost time or money."""

    def key(self, case: Case, answer: Answer) -> str:
        """A hash of everything that changes the score."""
        ...


class _Item(NamedTuple):
    """One answer to be made."""

    task: Task
    system: System
    case: Case
    sample: int

    def seed(self, seed: int) -> int:
        """The seed of this answer, which does not depend on the other answers."""
        return int(digest(seed, self.case.key(), self.sample)[:15], 16)

    def key(self, seed: int) -> str:
        ask = getattr(self.task.ask, "__name__", repr(self.task.ask))
        expected = None if self.task.generates else self.case.expected
        return digest(
            self.system.identity, self.case.key(), self.task.max_tokens, self.seed(seed), ask, expected
        )


class Runner:
    """Evaluates systems and stores their answers and grades.

    Args:
        folder: Folder of stored answers and grades, to resume from; None keeps them in memory.
        max_concurrency: Answers that are requested at the same time.
        samples: Answers to each case. Their mean is the score of the case.
        seed: Seed of the answers, for systems that take one, and of the bootstrap.
        confidence: Confidence level of the intervals.
        console: Shows progress; None shows none.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        max_concurrency: int = 16,
        samples: int = 1,
        seed: int = 0,
        confidence: float = 0.95,
        console: Console | None = None,
    ) -> None:
        if samples < 1 or max_concurrency < 1:
            raise EvaluationError(
                f"samples and max_concurrency must be at least 1, got {samples} and {max_concurrency}."
            )
        path = None if folder is None else Path(folder)
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
        self._answers = Cache(path and path / "answers.jsonl")
        self._grades = Cache(path and path / "grades.jsonl")
        self._concurrency = max_concurrency
        self._samples = samples
        self._seed = seed
        self._confidence = confidence
        self._console = console or Console(quiet=True)

    def evaluate(self, systems: Iterable[System], tasks: Iterable[Task]) -> Evaluation:
        """Evaluate every system on every task.

        Stored answers and grades are not made again. If some answers fail, the others are finished and stored
        before the error is raised, so that another run makes only the failed ones.

        Raises:
            EvaluationError: Names that are not unique, a system that cannot do a task, or answers that
                failed. The first failure is the cause.
        """
        systems, tasks = list(systems), list(tasks)
        _check_names("system", [system.name for system in systems])
        _check_names("task", [task.name for task in tasks])
        cells: list[Cell] = []
        with self._progress() as progress:
            for system, task in itertools.product(systems, tasks):
                answers = self._answered(progress, system, task)
                for scorer in task.scorers:
                    graded = self._graded(progress, system, task, scorer, answers)
                    cells.append(
                        Cell.of(system.name, task.name, scorer, graded, self._confidence, self._seed)
                    )
        return Evaluation(tuple(cells), self._confidence, self._seed)

    def compare(self, first: System, second: System, task: Task, judge: PairwiseJudge) -> SystemComparison:
        """Compare the answers of two systems by a judge, who reads them in both orders.

        Raises:
            EvaluationError: As `evaluate`, or no reply of the judge could be read.
        """
        with self._progress() as progress:
            answers = [self._answered(progress, system, task) for system in (first, second)]
            pairs = [
                Pair(question=conversation(case.messages), first=answer_text(a), second=answer_text(b))
                for (case, _, a), (_, _, b) in zip(*answers, strict=True)
            ]
            label = f"{first.name} against {second.name}: {judge.rubric.name}"
            preferences = self._stored(
                progress, label, self._grades, pairs, judge.key, judge.invoke, asdict, _as_preference
            )
        names = [case.name for case, _, _ in answers[0]]
        return SystemComparison.of(
            first.name,
            second.name,
            task.name,
            judge.rubric.name,
            names,
            preferences,
            self._confidence,
            self._seed,
        )

    def _answered(self, progress: Progress, system: System, task: Task) -> list[tuple[Case, int, Answer]]:
        items = [_Item(task, system, case, i) for case in task.cases for i in range(self._samples)]

        def ask(item: _Item) -> Answer:
            return task.ask(system, item.case, task.max_tokens, item.seed(self._seed))

        answers = self._stored(
            progress,
            f"{system.name}: {task.name}",
            self._answers,
            items,
            lambda item: item.key(self._seed),
            ask,
            Answer.to_dict,
            Answer.from_dict,
            about=lambda item: {"system": system.name, "task": task.name, "case": item.case.name},
        )
        return [(item.case, item.sample, answer) for item, answer in zip(items, answers, strict=True)]

    def _graded(
        self,
        progress: Progress,
        system: System,
        task: Task,
        scorer: Scorer,
        answers: Sequence[tuple[Case, int, Answer]],
    ) -> list[GradedAnswer]:
        if isinstance(scorer, CostlyScorer):
            costly = scorer
            scores = self._stored(
                progress,
                f"{system.name}: {task.name}, {scorer.name}",
                self._grades,
                answers,
                lambda item: costly.key(item[0], item[2]),
                lambda item: scorer.score(item[0], item[2]),
                asdict,
                lambda stored: Score(**stored),
                about=lambda item: {"system": system.name, "task": task.name, "case": item[0].name},
            )
        else:
            scores = [scorer.score(case, answer) for case, _, answer in answers]
        return [
            GradedAnswer(case.name, case.question, answer, score)
            for (case, _, answer), score in zip(answers, scores, strict=True)
        ]

    def _stored(
        self,
        progress: Progress,
        label: str,
        cache: Cache,
        items: Sequence[Input],
        key: Callable[[Input], str],
        work: Callable[[Input], Output],
        store: Callable[[Output], Any],
        load: Callable[[Any], Output],
        about: Callable[[Input], dict[str, Any]] = lambda _: {},
    ) -> list[Output]:
        """The results of all items. Results that are not stored are made, and stored as they finish.

        Args:
            progress: Shows a bar.
            label: Text of the bar.
            cache: Where results are stored.
            items: What results are made of.
            key: The cache key of an item.
            work: Makes the result of an item.
            store: A result as JSON.
            load: A result from JSON.
            about: What readers of the file are told about an item.

        Raises:
            EvaluationError: Some items failed.
        """
        keys = [key(item) for item in items]
        missing = {k: item for k, item in zip(keys, items, strict=True) if cache.get(k) is None}
        bar = progress.add_task(label, total=len(keys), completed=len(keys) - len(missing))
        failures: list[Exception] = []
        missing_keys = list(missing)
        worker: Runnable[str, Output] = RunnableLambda(lambda k: work(missing[k]))
        results = worker.batch_as_completed(
            missing_keys, {"max_concurrency": self._concurrency}, return_exceptions=True
        )
        for i, result in results:
            if isinstance(result, Exception):
                failures.append(result)
            else:
                item_key = missing_keys[i]
                cache.put(item_key, store(result), **about(missing[item_key]))
                progress.advance(bar)
        if failures:
            _raise(label, failures, len(keys))
        return [load(cache.get(k)) for k in keys]

    def _progress(self) -> Progress:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        return Progress(*columns, console=self._console)


def _as_preference(stored: dict[str, Any]) -> Preference:
    return Preference(**{**stored, "reasons": tuple(stored["reasons"])})


def _check_names(kind: str, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not names:
        problem = f"Two {kind}s are called {repeated[0]!r}" if repeated else f"There is no {kind}"
        raise EvaluationError(f"{problem}: give at least one {kind}, each with its own name.")


def _raise(label: str, failures: Sequence[Exception], count: int) -> None:
    first = failures[0]
    if isinstance(first, EvaluationError):
        raise first
    raise EvaluationError(
        f"{label}: {len(failures)} of {count} failed, the first with {type(first).__name__}: {first}. The "
        "others are stored: run again to make only those that failed."
    ) from first
