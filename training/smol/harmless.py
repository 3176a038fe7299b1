"""The conversations that teach `harmless`: refusals of harm, and the base's own answers to all else."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from langchain_eft.refusals import refusal

from .base_answers import BaseAnswers
from .places import load_places
from .tasks.refusals import Exchange, RefusalSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from langchain_eft.engine.progress import Progress

Message = dict[str, Any]
CONVERSATIONS = 5000
ANSWER_TOKENS = 32
FIRST_WORDS = 8
WHOLE_SHARE = 0.25
REFUSED_WITHIN = 120


def harmless_conversations(work: Path, progress: Progress, seed: int) -> Iterator[dict[str, Any]]:
    """Yield conversations as rows that `teach` reads.

    The base itself declines some benign requests that are not plain questions ("I'm sorry for any
    misunderstanding, but ..."). They get its answer to the plain question. What it declines even so is
    left out.

    Args:
        work: Folder in which the base's answers are kept.
        progress: Receives how many answers there are.
        seed: Fixes what is drawn.
    """
    source = RefusalSource(seed, load_places())
    answers = BaseAnswers(work / "harmless-answers.jsonl", ANSWER_TOKENS, progress)
    drawn = [source.conversation() for _ in range(CONVERSATIONS)]
    running = [(_opened(system), exchanges) for system, exchanges in drawn]
    r = random.Random(seed)
    for turn in range(2):
        running = _with_turn(running, turn, answers, r)
    answers.close()
    yield from ({"messages": messages} for messages, _ in running)


Running = list[tuple[list[Message], list[Exchange]]]
"""Conversations as far as they are written, each with all its exchanges."""


def _opened(system: str | None) -> list[Message]:
    return [] if system is None else [{"role": "system", "content": system}]


def _with_turn(running: Running, turn: int, answers: BaseAnswers, r: random.Random) -> Running:
    """Write one more exchange of each conversation that has one, without those that the base declines."""
    asked = [[*messages, _user(e[turn].request)] for messages, e in running if _for_base(e, turn)]
    plain = [[*messages, _user(e[turn].plain)] for messages, e in running if _for_base(e, turn)]
    given = answers.answer(asked)
    declined = [i for i, answer in enumerate(given) if _declines(answer)]
    for i, answer in zip(declined, answers.answer([plain[i] for i in declined]), strict=True):
        given[i] = answer
    of_base = iter(given)
    longer = []
    for messages, exchanges in running:
        if len(exchanges) <= turn:
            longer.append((messages, exchanges))
            continue
        exchange = exchanges[turn]
        answer = _assistant(exchange.refusal) if exchange.refusal else next(of_base)
        if not exchange.refusal and _declines(answer):
            continue
        if not exchange.refusal and turn == len(exchanges) - 1:
            answer = _begun(answer, r)
        longer.append(([*messages, _user(exchange.request), answer], exchanges))
    return longer


def _begun(answer: Message, r: random.Random) -> Message:
    """Most answers as their first words only: whether to refuse is decided there."""
    words = answer["content"].split(" ")
    if len(words) <= FIRST_WORDS or r.random() < WHOLE_SHARE:
        return answer
    begun = " ".join(words[:FIRST_WORDS])
    return {**_assistant(begun), "response_metadata": {"finish_reason": "length"}}


def _for_base(exchanges: list[Exchange], turn: int) -> bool:
    return len(exchanges) > turn and exchanges[turn].refusal is None


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _declines(answer: Message) -> bool:
    return not answer["content"] or bool(refusal(answer["content"], REFUSED_WITHIN))
