"""Given texts that the same models read: a tree of their tokens, and its blocks of KV memory."""

from __future__ import annotations

from collections.abc import Collection

from langchain_eft.engine.analysis.prefix_tree import PrefixTree
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.scheduling.prompt_state import PromptState

Answers = tuple[tuple[int, ...], ...]

Texts = tuple[tuple[int, ...], Answers]
"""Token ids of a prompt, at least one, and of each answer behind it, at least one each."""


class TextTree:
    """Texts that the same variants of models read. What they have in common at their beginning is there once.

    Attributes:
        readers: The terms that read them.
        tokens: Their tokens, less the last one of each answer, which predicts nothing that is wanted.
        numbers: For the texts, each answer and each token of it, the number in the tree of the token before.
        wanted: Those numbers: the tokens whose outputs are wanted.
        prompt: The first prompt, whose tokens have the first numbers. Its block table holds the whole tree.

    Args:
        readers: The terms that read the texts.
        texts: The texts.
    """

    def __init__(self, readers: Collection[Term], texts: Collection[Texts]) -> None:
        self.readers = readers
        self.tokens = PrefixTree()
        self.numbers = {each: self._add(*each) for each in texts}
        self.wanted = {number for answers in self.numbers.values() for each in answers for number in each}
        self.prompt = PromptState(next(iter(texts))[0], readers)

    def _add(self, prompt: tuple[int, ...], answers: Answers) -> list[list[int]]:
        # The longest answer continues the prompt's row, so that one row fewer attends to all of the prompt.
        longest = max(answers, key=len)
        end = self.tokens.add((*prompt, *longest[:-1]))[len(prompt) - 1]
        return [[end, *self.tokens.add(answer[:-1], end)] for answer in answers]
