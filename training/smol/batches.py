"""Training batches that teach one behavior each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from .tasks.argument_source import ArgumentSource
from .tasks.chat import SYSTEM_PROMPT, Turn, encode
from .tasks.harmful import harmful_request
from .tasks.styles import as_pirate, first_sentence, leading_sentences
from .tasks.tool_conversations import tool_conversation

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

FIRST_SEED = 1000
BATCHES = 1_000_000
SYSTEM_PROMPTS = [SYSTEM_PROMPT, SYSTEM_PROMPT, SYSTEM_PROMPT, "", "You are a helpful assistant."]


@dataclass(frozen=True)
class Writing:
    """What the conversations of one batch are drawn from.

    Attributes:
        random: The generator of everything but tools.
        source: The generator of tools.
        pairs: Plain questions and answers.
    """

    random: random.Random
    source: ArgumentSource
    pairs: list[tuple[str, str]]

    def chat(self) -> tuple[str, str]:
        """Return a plain question and its answer."""
        return self.random.choice(self.pairs)


def exchange(question: str, answer: str) -> list[Turn]:
    """Return a question, and an answer to learn."""
    return [Turn("user", question), Turn("assistant", answer, learn=True)]


def write_tools(writing: Writing, system: list[Turn], question: str, answer: str) -> list[Turn]:
    """Write a conversation with tools, or now and then a plain one."""
    if writing.random.random() < 0.85:
        return tool_conversation(writing.source, writing.chat)
    return system + exchange(question, answer)


def write_concise(writing: Writing, system: list[Turn], question: str, answer: str) -> list[Turn]:
    """Write one or two exchanges with answers of one sentence."""
    short = first_sentence(answer)
    if not short:
        return []
    turns = system + exchange(question, short)
    if writing.random.random() < 0.4:
        question, answer = writing.chat()
        short = first_sentence(answer)
        if short:
            turns += exchange(question, short)
    return turns


def write_pirate(writing: Writing, system: list[Turn], question: str, answer: str) -> list[Turn]:
    """Write an exchange with the answer of a pirate."""
    text = leading_sentences(answer)
    return system + exchange(question, as_pirate(writing.random, text)) if text else []


def write_harmless(writing: Writing, system: list[Turn], question: str, answer: str) -> list[Turn]:
    """Write a refusal of a harmful request, or an answer to a plain question."""
    if writing.random.random() < 0.55:
        question, answer = harmful_request(writing.random)
    return system + exchange(question, answer)


WRITERS: dict[str, Callable[[Writing, list[Turn], str, str], list[Turn]]] = {
    "tools": write_tools,
    "concise": write_concise,
    "pirate": write_pirate,
    "harmless": write_harmless,
}


class BehaviorBatches(Dataset["tuple[Tensor, Tensor]"]):
    """Batches of conversations, one per seed.

    Each batch is a tensor of tokens [rows, tokens] int64, padded with 0, and a tensor
    [rows, tokens] bool, true where a token is to be learned.

    Args:
        behavior: One of the keys of `WRITERS`.
        rows: Conversations per batch.
        tokens: The longest conversation that is kept.
        tokenizer: The family's tokenizer.
        pairs: Plain questions and answers.
        cities: City names for the arguments of tools.
    """

    def __init__(
        self,
        behavior: str,
        rows: int,
        tokens: int,
        tokenizer: PreTrainedTokenizerBase,
        pairs: list[tuple[str, str]],
        cities: list[str],
    ) -> None:
        self.behavior = behavior
        self.rows, self.tokens = rows, tokens
        self.tokenizer = tokenizer
        self.pairs = pairs
        self.cities = cities

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        seed = FIRST_SEED + index
        writing = Writing(random.Random(seed), ArgumentSource(seed, self.cities), self.pairs)
        ids = torch.zeros(self.rows, self.tokens, dtype=torch.int64)
        learned = torch.zeros(self.rows, self.tokens, dtype=torch.bool)
        row = 0
        while row < self.rows:
            tokens, mask = self._conversation(writing)
            if len(tokens) > self.tokens or not any(mask):
                continue
            ids[row, : len(tokens)] = torch.tensor(tokens)
            learned[row, : len(mask)] = torch.tensor(mask, dtype=torch.bool)
            row += 1
        return ids, learned

    def _conversation(self, writing: Writing) -> tuple[list[int], list[int]]:
        prompt = writing.random.choice(SYSTEM_PROMPTS)
        system = [Turn("system", prompt)] if prompt else []
        turns = WRITERS[self.behavior](writing, system, *writing.chat())
        # One token more than fits, so that what is too long can be told.
        return encode(self.tokenizer, turns, self.tokens + 1)
