"""What terms of the formula say behind prompts and answers that are given."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from langchain_eft.engine.analysis.prefix_tree import PrefixTree
from langchain_eft.engine.analysis.tree_passes import ReadTree, TreeMemory, tree_outputs
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.models.family import ModelFamily, Term

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work that pauses after every forward pass, so that others can run in between."""

Answers = tuple[tuple[int, ...], ...]

_BLOCK = 16
"""Tokens per block of memory that nobody shares."""


@dataclass(frozen=True)
class Reading:
    """What a term reads."""

    term: Term  # which variant of which model
    prompt: tuple[int, ...]  # token ids before each answer, at least one
    answers: Answers  # token ids of each answer, at least one each


@dataclass(frozen=True)
class TreeText:
    """What memory has to know of a tree."""

    tokens: tuple[int, ...]  # its first text, whose tokens have the first numbers
    terms: tuple[Term, ...]  # the terms that read it
    reusable: int  # tokens at its beginning whose outputs nobody wants
    size: int  # all of its tokens


@dataclass(frozen=True)
class TreeBlocks:
    """Memory of one tree."""

    blocks: Sequence[int]  # blocks for its tokens, in the order of their numbers
    num_cached: int = 0  # tokens at its beginning whose keys and values are there already


class Memory(Protocol):
    """Where keys and values of trees can be for a while."""

    def borrow(
        self, texts: Sequence[TreeText]
    ) -> AbstractContextManager[tuple[TreeMemory, list[TreeBlocks]]]:
        """Memory for trees, until the context is left."""


class OwnMemory:
    """Memory that is taken for some trees and freed after them."""

    def __init__(self, family: ModelFamily) -> None:
        self._num_models = len(family.models)

    @contextmanager
    def borrow(self, texts: Sequence[TreeText]) -> Iterator[tuple[TreeMemory, list[TreeBlocks]]]:
        """Memory for trees, until the context is left."""
        parts: list[TreeBlocks] = []
        stride = 0
        for text in texts:
            blocks = range(stride, stride + -(-text.size // _BLOCK))
            parts.append(TreeBlocks(blocks))
            stride = blocks.stop
        variants = 1 + max(term.variant for text in texts for term in text.terms)
        pools = [KVPool(stride * variants * _BLOCK) for _ in range(self._num_models)]
        yield TreeMemory(pools, _BLOCK, stride), parts


@dataclass(frozen=True)
class _Forest:
    """The trees of some readings."""

    trees: list[PrefixTree]
    texts: list[TreeText]
    tree_of: dict[tuple[int, int], int]  # which of them each variant of each model reads
    # for each reading and answer, the tokens whose outputs predict the answer's tokens
    numbers: list[list[list[int]]]

    def kept(self, tree: int, readings: Sequence[Reading]) -> set[int]:
        """The tokens of a tree whose outputs are wanted."""
        return {
            number
            for reading, answers in zip(readings, self.numbers, strict=True)
            if self.tree_of[_variant(reading.term)] == tree
            for numbers in answers
            for number in numbers
        }


@dataclass(frozen=True)
class Outputs:
    """What terms say behind the beginnings of answers."""

    # for each reading, answer and token of the answer, what predicts the token: [hidden] if the model's head
    # is a plain matrix, else [V'], on the model's device
    rows: list[list[list[Tensor]]]
    num_cached: list[int]  # for each reading, tokens of the first prompt of its term that memory held already


def term_outputs(family: ModelFamily, memory: Memory, readings: Sequence[Reading]) -> Steps[Outputs]:
    """Outputs that predict the tokens of given answers. What texts share at their beginning runs once.

    Raises:
        DecodingError: A model's outputs are NaN.
    """
    forest = _forest(readings)
    with memory.borrow(forest.texts) as (place, parts):
        outputs: dict[tuple[int, int], dict[int, Tensor]] = {}
        kept = [forest.kept(tree, readings) for tree in range(len(forest.trees))]
        for index, model in enumerate(family.models):
            reads = {
                variant: ReadTree(forest.trees[i], parts[i].blocks, parts[i].num_cached, kept[i])
                for (number, variant), i in forest.tree_of.items()
                if number == index
            }
            if reads:
                of_variants = yield from tree_outputs(model, index, place, reads)
                outputs |= {(index, variant): rows for variant, rows in of_variants.items()}
    variants = [_variant(reading.term) for reading in readings]
    rows = [
        [[outputs[variant][number] for number in numbers] for numbers in answers]
        for variant, answers in zip(variants, forest.numbers, strict=True)
    ]
    return Outputs(rows, [parts[forest.tree_of[variant]].num_cached for variant in variants])


def finished(steps: Steps[T]) -> T:
    """The result of work that is done without pauses."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


def _variant(term: Term) -> tuple[int, int]:
    return term.model, term.variant


def _forest(readings: Sequence[Reading]) -> _Forest:
    """Variants that read the same texts share a tree, and with it the blocks of their memory."""
    read_by: dict[tuple[int, int], list[Reading]] = {}
    for reading in readings:
        read_by.setdefault(_variant(reading.term), []).append(reading)
    same: dict[tuple[tuple[tuple[int, ...], Answers], ...], list[tuple[int, int]]] = {}
    for variant, own in read_by.items():
        same.setdefault(tuple((each.prompt, each.answers) for each in own), []).append(variant)
    trees: list[PrefixTree] = []
    texts: list[TreeText] = []
    tree_of: dict[tuple[int, int], int] = {}
    numbers_of: dict[tuple[int, int], list[list[list[int]]]] = {}
    for index, (pairs, variants) in enumerate(same.items()):
        tree = PrefixTree()
        numbers = [_numbers(tree, prompt, answers) for prompt, answers in pairs]
        first = min(number for answers in numbers for each in answers for number in each)
        terms = tuple(Term(*variant) for variant in variants)
        trees.append(tree)
        texts.append(TreeText(pairs[0][0], terms, first, len(tree)))
        tree_of |= dict.fromkeys(variants, index)
        numbers_of |= {variant: list(numbers) for variant in variants}
    in_order = [numbers_of[_variant(reading.term)].pop(0) for reading in readings]
    return _Forest(trees, texts, tree_of, in_order)


def _numbers(tree: PrefixTree, prompt: tuple[int, ...], answers: Answers) -> list[list[int]]:
    """Add a prompt and what is read of its answers: all but their last tokens."""
    # The longest answer continues the prompt's row, so that one row fewer has to attend to all of the prompt.
    longest = max(answers, key=len)
    end = tree.add((*prompt, *longest[:-1]))[len(prompt) - 1]
    return [[end, *tree.add(answer[:-1], end)] for answer in answers]
