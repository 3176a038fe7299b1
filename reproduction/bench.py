"""What an experiment is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_eft import EFTChatModel
from langchain_eft.evaluation import Length, Runner, Task, benign, capitals

BEHAVIORS = ("tools", "concise", "harmless", "pirate")
SEED = 2024
"""Of the fresh tools and of the order of the prompts."""

LARGE_ADAPTERS = Path(__file__).with_name("large")
"""Adapters of the base itself, by behaviour; `training/smol/adapt_base.py` makes them."""


@dataclass(frozen=True)
class Sizes:
    """How many cases of each kind.

    Attributes:
        capitals: Countries asked about, where all systems are.
        tools: Tool calls where a share near 1 is to be told from 97 %.
        swept_tools: Tool calls at each point of a sweep.
        requests: Harmful requests of the training generator, and at most so many of our own.
        swept_requests: Harmful and harmless requests at each point of a sweep.
        chat: Plain questions at each point of a sweep.
        pairs: Pairs of answers of each kind.
        tokens: Longest answer of the speed measurements.
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
    """What one experiment found.

    Attributes:
        name: Its name.
        title: Of its section of the page.
        question: What the paper claims, and what is measured here.
        tables: Markdown tables, each with its caption first.
        figure: File name of its figure, or nothing.
        findings: What agrees with the paper and what does not, computed from the numbers.
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
    """What experiments work with.

    Attributes:
        llm: The smol family, greedy.
        runner: Answers are kept there.
        sizes: How many cases.
        figures: Folder of the figures.
        folder: Of everything else that is made on the way.
        large_adapters: Folder of adapters of the base itself, by behaviour.
    """

    llm: EFTChatModel
    runner: Runner
    sizes: Sizes
    figures: Path
    folder: Path
    large_adapters: Path

    def capitals(self) -> Task:
        """The capitals, in an order that fewer of them are drawn from."""
        return capitals().limited(self.sizes.capitals, SEED)

    def plain_questions(self) -> Task:
        """Questions that nobody refuses; the words of the answers are counted."""
        plain = tuple(case for case in benign(SEED).cases if case.name.startswith("ordinary"))
        words = Length("words", "words", higher_is_better=False)
        return Task("plain questions", plain, (words,), max_tokens=60).limited(self.sizes.chat)
