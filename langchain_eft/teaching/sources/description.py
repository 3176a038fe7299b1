"""Prompt distillation: a teacher answers under a system prompt, and the adapter learns to do it without.

The idea is that of context distillation (Askell et al. 2021, section 2.2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_eft.engine.progress import Progress
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.evaluation.cache import Cache
from langchain_eft.presets import load_preset
from langchain_eft.teaching.behavior_folder import writing
from langchain_eft.teaching.errors import TeachingError
from langchain_eft.teaching.examples import Conversation, Lesson
from langchain_eft.teaching.sources.questions import questions

QUESTIONS = 240
"""How many questions are asked by default."""

EMPHASIS = 2.0
"""Weight of the description in the recipe's own answers. A small base hardly follows a system prompt at
weight 1; more than 1 is classifier-free guidance (Sanchez et al. 2023)."""

ANSWER_TOKENS = 64
TOGETHER = 16
_DESCRIBED = "description"


class SelfTeacher:
    """The recipe itself as teacher: its base, and its usual behaviors, with emphasis on the description.

    Args:
        model: Name of the base.
        description: The system prompt.
        seed: Of the answers.
    """

    def __init__(self, model: str, description: str, seed: int) -> None:
        from langchain_eft.chat_models import EFTChatModel

        preset = load_preset(model)
        usual = dict(preset.mixture.weights) if preset else {}
        self.name = f"{model}, with {EMPHASIS:g} times the description"
        self._llm = EFTChatModel(
            model=model,
            behaviors={_DESCRIBED: BehaviorDelta(prompt=description)},
            mixture={**usual, _DESCRIBED: EMPHASIS},
            temperature=0.7,
            max_tokens=ANSWER_TOKENS,
            seed=seed,
        )

    def answer(self, asked: Sequence[str], progress: Progress) -> list[AIMessage]:
        """Answer some questions in one batch."""
        self._llm.open(progress)
        return _answers(self._llm, [[HumanMessage(question)] for question in asked])

    def close(self) -> None:
        """Free the weights."""
        from langchain_eft.engine.registry import find_engine

        engine = find_engine(self._llm.recipe, self._llm.engine_config)
        if engine is not None:
            engine.close()


class ChatTeacher:
    """Any chat model as teacher. The description is its system prompt.

    Args:
        llm: The chat model.
        name: Its name, for the card.
        description: The system prompt.
    """

    def __init__(self, llm: BaseChatModel, name: str, description: str) -> None:
        self.name = name
        self._llm = llm
        self._description = description

    def answer(self, asked: Sequence[str], progress: Progress) -> list[AIMessage]:  # noqa: ARG002
        """Answer some questions at the same time."""
        prompts = [[SystemMessage(self._description), HumanMessage(question)] for question in asked]
        return _answers(self._llm, prompts)

    def close(self) -> None:
        """Nothing is held."""


Teacher = SelfTeacher | ChatTeacher


def _answers(llm: Any, prompts: Sequence[Sequence[BaseMessage]]) -> list[AIMessage]:
    try:
        answers: list[AIMessage] = llm.batch([list(prompt) for prompt in prompts])
    except Exception as error:  # providers raise errors of many kinds
        raise TeachingError(
            f"The teacher could not answer ({type(error).__name__}: {error}): go on with `resume` "
            "(--resume), which keeps the answers so far, or name another teacher."
        ) from error
    return answers


def describe_lesson(
    description: str, teacher: Teacher, file: Path, seed: int, progress: Progress, count: int = QUESTIONS
) -> Lesson:
    """Let a teacher answer questions, and make conversations of its answers.

    Args:
        description: What the behavior is, as a system prompt.
        teacher: Who answers.
        file: Where answers are kept as they come; those that it holds already are not asked for again.
        seed: Of the questions and of the split.
        progress: Receives how many questions are answered.
        count: How many questions are asked.

    Raises:
        TeachingError: The teacher fails, or too few of its answers can be used.
    """
    asked = questions(count, seed)
    answers = Cache(file)
    missing = [question for question in asked if question not in answers]
    for start in range(0, len(missing), TOGETHER):
        progress(f"The teacher answers: {len(answers)} of {len(asked)} questions")
        some = missing[start : start + TOGETHER]
        for question, answer in zip(some, teacher.answer(some, progress), strict=True):
            with writing(file):
                answers.put(question, usable(answer))
    conversations = [
        Conversation(f"answer {i}", (HumanMessage(question), AIMessage(text)))
        for i, question in enumerate(asked)
        if (text := answers.get(question))
    ]
    return Lesson.split(f"described: {description}", conversations, seed)


def usable(answer: AIMessage) -> str | None:
    """The text of an answer up to its last whole sentence; None if nothing of it can be learned."""
    text = str(answer.text).strip()
    if answer.response_metadata.get("finish_reason") == "length":
        match = re.match(r"(.*[.!?])", text, flags=re.DOTALL)
        text = match[1] if match else ""
    return text or None
