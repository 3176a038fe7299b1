"""Starts of conversations, which the base model then continues on its own."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from .tasks.argument_source import ArgumentSource
from .tasks.chat import SYSTEM_PROMPT, Turn, encode, header, render
from .tasks.harmful import harmful_request
from .tasks.tool_conversations import tool_conversation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from .places import Places

NO_TOKEN = -1
SEEDS = 200
OTHER_SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a friendly teacher.",
    "You are an expert who answers briefly.",
    "You are a storyteller.",
    "You answer questions about the world.",
    "You are a careful assistant that never lies.",
]
QUESTIONS_ABOUT_WORDS = [
    "Tell me about {w}.",
    "What is {w}?",
    "Write a short story about {w}.",
    "Explain {w} to a child.",
    "Why is {w} important?",
    "Give me three facts about {w}.",
    "Write a poem about {w}.",
    "What does the word {w} mean?",
    "How do I use {w}?",
    "Write one sentence with the word {w}.",
    "{W}",
    "Describe {w}.",
    "I like {w}.",
    "What are the benefits of {w}?",
    "Where can I find {w}?",
    "Tell me a joke about {w}.",
]
QUESTIONS_ABOUT_PLACES = [
    "What is the capital of {country}?",
    "Which country has the capital {capital}?",
    "On which continent is {country}?",
    "What currency is used in {country}?",
    "Tell me about {country}.",
    "Where is {capital}?",
    "What is {capital} known for?",
    "In which country is the city of {city}?",
    "Tell me about {city}.",
    "What language do people speak in {country}?",
    "Name a famous person from {country}.",
    "What food is popular in {country}?",
]


def plain_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the vocabulary's English-looking words of four letters or more, by token id."""
    # A tokenizer lists its vocabulary in a random order.
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [token[1:] for token, _ in tokens if token.startswith("Ġ")]
    return [word for word in words if len(word) > 3 and word.isalpha() and word.isascii()]


class PrefixWriter:
    """Writes random starts of conversations.

    Args:
        seed: Fixes everything that is written.
        tokenizer: The family's tokenizer.
        words: The words to ask about.
        places: The countries and cities to ask about.
    """

    def __init__(
        self, seed: int, tokenizer: PreTrainedTokenizerBase, words: list[str], places: Places
    ) -> None:
        self.random = random.Random(seed)
        self.source = ArgumentSource(seed, places.cities)
        self.tokenizer = tokenizer
        self.words = words
        self.places = places

    def write(self) -> tuple[str, bool]:
        """Return the text of a start, and whether the assistant is the one to speak."""
        share = self.random.random()
        system = self._system()
        if share < 0.30:
            return system + header("user"), False
        if share < 0.58:
            return self._about_a_word(system)
        if share < 0.78:
            return system + self._question(self._about_a_place()), True
        if share < 0.84:
            return system + self._question(harmful_request(self.random)[0]), True
        if share < 0.97:
            return self._with_tools()
        word = self._word().capitalize() if self.random.random() < 0.5 else ""
        return "<|endoftext|>" + word, False

    def _word(self) -> str:
        return self.random.choice(self.words)

    def _system(self) -> str:
        if self.random.random() < 0.7:
            return render([Turn("system", SYSTEM_PROMPT)])
        if self.random.random() < 0.7:
            return render([Turn("system", self.random.choice(OTHER_SYSTEM_PROMPTS))])
        return ""

    def _question(self, question: str) -> str:
        return render([Turn("user", question)]) + header("assistant")

    def _about_a_word(self, system: str) -> tuple[str, bool]:
        word = self._word()
        template = self.random.choice(QUESTIONS_ABOUT_WORDS)
        question = template.format(w=word, W=word.capitalize())
        if self.random.random() < 0.7:
            return system + self._question(question), True
        # Left open: the base model goes on with the user's message.
        return system + header("user") + question, False

    def _about_a_place(self) -> str:
        country = self.random.choice(self.places.countries)
        template = self.random.choice(QUESTIONS_ABOUT_PLACES)
        city = self.random.choice(self.places.cities)
        return template.format(country=country.name, capital=country.capital, city=city)

    def _with_tools(self) -> tuple[str, bool]:
        turns = tool_conversation(self.source, lambda: (f"What is {self._word()}?", ""))
        kept = self.random.choice([1, 2, len(turns)])
        # A conversation without an answer ends in an empty turn, which the base model has to write.
        turns = turns[:kept] if turns[-1].content else turns[:2]
        ids, _ = encode(self.tokenizer, turns, 1000)
        assistant = turns[-1].role == "user"
        return self.tokenizer.decode(ids) + header("assistant" if assistant else "user"), assistant


class PrefixBatches(Dataset["tuple[Tensor, Tensor]"]):
    """Batches of starts of conversations, one per seed.

    Each batch is a tensor of tokens [rows, tokens] int64, `NO_TOKEN` where the base model is free,
    and a tensor [rows] bool, true where the assistant is the one to speak.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, places: Places, rows: int, tokens: int) -> None:
        self.tokenizer = tokenizer
        self.places = places
        self.words = plain_words(tokenizer)
        self.rows = rows
        self.tokens = tokens

    def __len__(self) -> int:
        return SEEDS

    def __getitem__(self, seed: int) -> tuple[Tensor, Tensor]:
        writer = PrefixWriter(seed, self.tokenizer, self.words, self.places)
        forced = torch.full((self.rows, self.tokens), NO_TOKEN, dtype=torch.int64)
        assistant = torch.zeros(self.rows, dtype=torch.bool)
        for row in range(self.rows):
            text, speaks = writer.write()
            ids = self.tokenizer(text).input_ids[: self.tokens]
            forced[row, : len(ids)] = torch.tensor(ids)
            assistant[row] = speaks
        return forced, assistant
