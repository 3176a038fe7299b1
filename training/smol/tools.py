"""The conversations that teach `tools`: calls of any tool with any values, and the base's own answers."""

from __future__ import annotations

import itertools
import json
import random
from typing import TYPE_CHECKING, Any

from langchain_eft.engine.loading.tokenizers import load_tokenizer
from langchain_eft.presets import load_preset
from langchain_eft.teaching.sources.questions import questions

from .base_answers import BaseAnswers
from .places import load_places
from .tasks.argument_source import ArgumentSource
from .tasks.tool_conversations import tool_conversation as first_conversation
from .tasks.tools.conversations import tool_conversation
from .tasks.tools.words import Words, vocabulary_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from langchain_eft.engine.progress import Progress

CONVERSATIONS = 6000
MAX_CHARACTERS = 1700
"""Longest conversation with its tools, as JSON: some 500 tokens."""

ANSWER_TOKENS = 48
EVERY_QUESTION = 1000
"""More than there are."""

QUESTIONS_ABOUT_COUNTRIES = (
    "Where is {}?", "What is {} known for?", "What language do people speak in {}?",
    "Tell me about the food of {}.",
)  # fmt: skip
"""None asks for a capital, because the evaluation measures knowledge by them."""


def tools_conversations(
    work: Path, progress: Progress, seed: int, first_share: float = 0.0
) -> Iterator[dict[str, Any]]:
    """Yield conversations as rows that `teach` reads.

    Args:
        work: Folder in which the base's answers are kept.
        progress: Receives how many answers there are.
        seed: Fixes what is drawn.
        first_share: Share of conversations from the generator of the first adapter.
    """
    words = Words(vocabulary_words(load_tokenizer(load_preset("smol").recipe)), seed)
    about_countries = [
        words.random.choice(QUESTIONS_ABOUT_COUNTRIES).format(country.name)
        for country in load_places().countries
    ]
    asked = [*questions(EVERY_QUESTION), *about_countries]
    answers = BaseAnswers(work / "tools-answers.jsonl", ANSWER_TOKENS, progress)
    given = answers.answer([[{"role": "user", "content": question}] for question in asked])
    answers.close()
    chats = list(zip(asked, given, strict=True))
    first = _first_conversations(seed, [(q, a["content"]) for q, a in chats if "response_metadata" not in a])

    def row() -> dict[str, Any]:
        of_first = first_share and words.random.random() < first_share
        return next(first) if of_first else tool_conversation(words, chats)

    rows = (row() for _ in itertools.count())
    short = (row for row in rows if len(json.dumps(row, ensure_ascii=False)) <= MAX_CHARACTERS)
    yield from itertools.islice(short, CONVERSATIONS)


def _first_conversations(seed: int, pairs: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield conversations that the first adapter was taught with, whose tools stand in the system message."""
    source, r = ArgumentSource(seed, load_places().cities), random.Random(seed)
    while True:
        turns = first_conversation(source, lambda: r.choice(pairs))
        yield {"messages": [{"role": turn.role, "content": turn.content} for turn in turns if turn.content]}
