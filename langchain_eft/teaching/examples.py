"""What a behavior is taught with: conversations, or pairs of a better and a worse answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, messages_to_dict

from langchain_eft.evaluation.cases import digest
from langchain_eft.teaching.errors import TeachingError

MIN_EXAMPLES = 8
"""Fewer examples than this show no behavior: some of them are held out, and the rest is learned by heart."""


@dataclass(frozen=True)
class Conversation:
    """A conversation whose answers are learned.

    Attributes:
        place: Where it stands, for error messages: `line 3`.
        messages: The conversation, oldest first. The last message is an answer.
        tools: Tools that may be called, in OpenAI's form.
    """

    place: str
    messages: tuple[BaseMessage, ...]
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def prompt(self) -> tuple[BaseMessage, ...]:
        """The messages before the first answer."""
        first = next(i for i, message in enumerate(self.messages) if isinstance(message, AIMessage))
        return self.messages[:first]


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt.

    Attributes:
        place: Where it stands, for error messages: `line 3`.
        prompt: The conversation before the answers.
        chosen: The better answer.
        rejected: The worse answer.
        tools: Tools that may be called, in OpenAI's form.
    """

    place: str
    prompt: tuple[BaseMessage, ...]
    chosen: AIMessage
    rejected: AIMessage
    tools: tuple[dict[str, Any], ...] = ()


Example = Conversation | PreferencePair


@dataclass(frozen=True)
class Lesson:
    """The examples of one behavior. All are of one kind.

    Attributes:
        source: Where they come from: a file, a data set, or a description.
        train: Examples that are learned.
        held_out: Examples that are kept apart. They measure what was learned.
        license: License of the examples, or None if it is unknown.
    """

    source: str
    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    license: str | None = None

    @classmethod
    def split(
        cls,
        source: str,
        examples: Sequence[Example],
        seed: int,
        license: str | None = None,  # noqa: A002
    ) -> Lesson:
        """Keep a tenth of the examples apart: at least 2, and at most 64.

        Equal examples are counted once, so that no held-out example is learned.

        Raises:
            TeachingError: Too few examples.
        """
        different = list({_content(example): example for example in examples}.values())
        if len(different) < MIN_EXAMPLES:
            raise TeachingError(
                f"{source!r} holds {len(different)} different examples, and a behavior needs at least "
                f"{MIN_EXAMPLES}; a few hundred are good. Add examples, or describe the behavior with "
                "`describe`."
            )
        random.Random(seed).shuffle(different)
        count = min(max(2, len(different) // 10), 64)
        return cls(source, tuple(different[count:]), tuple(different[:count]), license)

    @property
    def is_preferences(self) -> bool:
        """Whether the examples are pairs of answers."""
        return isinstance(self.train[0], PreferencePair)

    @property
    def digest(self) -> str:
        """A hash of the content of all examples."""
        return digest([_content(example) for example in (*self.train, *self.held_out)])

    @property
    def prompts(self) -> list[tuple[BaseMessage, ...]]:
        """The prompts of the held-out examples."""
        return [example.prompt for example in self.held_out]


def _content(example: Example) -> str:
    if isinstance(example, Conversation):
        return digest(messages_to_dict(example.messages), example.tools)
    messages = [*example.prompt, example.chosen, example.rejected]
    return digest(messages_to_dict(messages), example.tools)


def without_spaces(message: AIMessage) -> AIMessage:
    """An answer without the white space around it, which a tokenizer would join with the template's."""
    content = message.content
    return message.model_copy(update={"content": content.strip()}) if isinstance(content, str) else message
