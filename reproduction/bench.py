"""The input of an experiment (`Bench`) and its result (`Section`)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from langchain_eft import EFTChatModel
from langchain_eft.evaluation import Case, Length, Runner, Task, benign, capitals

BEHAVIORS = ("tools", "concise", "harmless", "pirate")
SEED = 2024
"""The seed of the fresh tools and of the order of the prompts."""

LARGE_ADAPTERS = Path(__file__).with_name("large")
"""Adapters of the base, by behavior; `training/smol/adapt_base.py` makes them."""


@dataclass(frozen=True)
class Sizes:
    """The number of cases of each kind.

    Attributes:
        capitals: Countries, for experiments with all systems.
        tools: Tool calls, enough to distinguish a share near 1 from 97 %.
        swept_tools: Tool calls at each point of a sweep.
        requests: Harmful requests of the training generator, and the most of our own.
        swept_requests: Harmful and harmless requests at each point of a sweep.
        chat: Plain questions at each point of a sweep.
        pairs: Pairs of answers of each kind.
        tokens: The longest answer of the speed measurements, in tokens.
        repetitions: Runs of the speed measurements.
    """

    capitals: int
    tools: int
    swept_tools: int
    requests: int
    swept_requests: int
    chat: int
    pairs: int
    tokens: int
    repetitions: int


FULL = Sizes(246, 160, 32, 128, 40, 32, 8, 32, 2)
QUICK = Sizes(16, 12, 6, 12, 8, 6, 2, 12, 1)


@dataclass(frozen=True)
class Section:
    """The result of one experiment.

    Attributes:
        name: Its name.
        title: The title of its section of the page.
        question: The paper's claim, and what is measured here.
        tables: Markdown tables, each with its caption first.
        figure: The file name of its figure, or an empty string.
        findings: Sentences computed from the numbers: agreement with the paper and differences.
        data: Every number, without the answers.
    """

    name: str
    title: str
    question: str
    tables: tuple[str, ...]
    figure: str
    findings: tuple[str, ...]
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """The input of all experiments.

    Attributes:
        llm: The smol family, greedy.
        runner: Asks the systems, and keeps their answers.
        sizes: The numbers of cases.
        figures: The folder of the figures.
        folder: The folder of all other files.
        large_adapters: The folder of adapters of the base, by behavior.
    """

    llm: EFTChatModel
    runner: Runner
    sizes: Sizes
    figures: Path
    folder: Path
    large_adapters: Path

    def capitals(self) -> Task:
        """Return the task `capitals`, limited to the configured number in a seeded order."""
        return capitals().limited(self.sizes.capitals, SEED)

    def plain_questions(self) -> Task:
        """Return the plain questions of the task `benign`; the score is the number of words in an answer."""
        plain = tuple(case for case in drawn(benign()).cases if case.name.startswith("ordinary"))
        words = Length("words", "words", higher_is_better=False)
        return Task("plain questions", plain, (words,), max_tokens=60).limited(self.sizes.chat)


def drawn(task: Task, count: int | None = None) -> Task:
    """Return the first cases of a task of requests, in the order of the published figures."""

    def number(case: Case) -> tuple[str, int]:
        kind, _, place = case.name.rpartition("-")
        return kind, int(place)

    cases = random.Random(SEED).sample(sorted(task.cases, key=number), len(task.cases))
    return replace(task, cases=tuple(cases)).limited(count)
