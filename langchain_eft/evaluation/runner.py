"""The runner: evaluates every system on every task, in batches, with a cache to resume from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

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


@runtime_checkable
class CostlyScorer(Protocol):
    """A scorer whose scores are stored, because they cost time or money."""

    def key(self, case: Case, answer: Answer) -> str:
        """A hash of everything that changes the score."""
        ...


class _Job(NamedTuple):
    """A result to be made, unless it is stored.

    Attributes:
        key: A hash of everything that changes the result.
        make: Makes the result, a dataclass.
        about: What readers of the file are told about it.
    """

    key: str
    make: Callable[[], Any]
    about: Mapping[str, str] = {}


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
                for (case, a), (_, b) in zip(*answers, strict=True)
            ]
            label = f"{first.name} against {second.name}: {judge.rubric.name}"
            jobs = [_Job(judge.key(pair), partial(judge.invoke, pair)) for pair in pairs]
            stored = self._stored(progress, label, self._grades, jobs)
        preferences = [Preference(**{**each, "reasons": tuple(each["reasons"])}) for each in stored]
        names = [case.name for case, _ in answers[0]]
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

    def _answered(self, progress: Progress, system: System, task: Task) -> list[tuple[Case, Answer]]:
        cases = [case for case in task.cases for _ in range(self._samples)]
        jobs = [
            self._answer(system, task, case, sample) for case in task.cases for sample in range(self._samples)
        ]
        stored = self._stored(progress, f"{system.name}: {task.name}", self._answers, jobs)
        return [(case, Answer.from_dict(answer)) for case, answer in zip(cases, stored, strict=True)]

    def _answer(self, system: System, task: Task, case: Case, sample: int) -> _Job:
        """One answer, whose seed does not depend on the other answers."""
        seed = int(digest(self._seed, case.key(), sample)[:15], 16)
        ask = getattr(task.ask, "__name__", repr(task.ask))
        expected = None if task.generates else case.expected
        return _Job(
            digest(system.identity, case.key(), task.max_tokens, seed, ask, expected),
            partial(task.ask, system, case, task.max_tokens, seed),
            _about(system, task, case),
        )

    def _graded(
        self,
        progress: Progress,
        system: System,
        task: Task,
        scorer: Scorer,
        answers: Sequence[tuple[Case, Answer]],
    ) -> list[GradedAnswer]:
        if isinstance(scorer, CostlyScorer):
            jobs = [
                _Job(scorer.key(*each), partial(scorer.score, *each), _about(system, task, each[0]))
                for each in answers
            ]
            label = f"{system.name}: {task.name}, {scorer.name}"
            scores = [Score(**score) for score in self._stored(progress, label, self._grades, jobs)]
        else:
            scores = [scorer.score(case, answer) for case, answer in answers]
        return [
            GradedAnswer(case.name, case.question, answer, score)
            for (case, answer), score in zip(answers, scores, strict=True)
        ]

    def _stored(self, progress: Progress, label: str, cache: Cache, jobs: Sequence[_Job]) -> list[Any]:
        """The fields of all results. Those that are not stored are made, and stored as they finish.

        Raises:
            EvaluationError: Some jobs failed.
        """
        missing = list({job.key: job for job in jobs if cache.get(job.key) is None}.values())
        bar = progress.add_task(label, total=len(jobs), completed=len(jobs) - len(missing))
        failures: list[Exception] = []
        worker: Runnable[int, Any] = RunnableLambda(lambda i: missing[i].make())
        results = worker.batch_as_completed(
            range(len(missing)), {"max_concurrency": self._concurrency}, return_exceptions=True
        )
        for i, result in results:
            if isinstance(result, Exception):
                failures.append(result)
            else:
                cache.put(missing[i].key, asdict(result), **missing[i].about)
                progress.advance(bar)
        if failures:
            _raise(label, failures, len(jobs))
        return [cache.get(job.key) for job in jobs]

    def _progress(self) -> Progress:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        return Progress(*columns, console=self._console)


def _about(system: System, task: Task, case: Case) -> dict[str, str]:
    return {"system": system.name, "task": task.name, "case": case.name}


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
