"""What terms of the formula say behind prompts and answers that are given."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from torch import Tensor

from langchain_eft.engine.analysis.kv_memory import KVMemory, allocated
from langchain_eft.engine.analysis.text_tree import Answers, Texts, TextTree
from langchain_eft.engine.analysis.tree_passes import tree_outputs
from langchain_eft.engine.models.family import ModelFamily, Term

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work that pauses after every forward pass, so that others can run in between."""

Place = tuple[int, int, int, int]
"""An output: the model, its variant, where its adapter begins to act, and the number of a token in the tree
that the variant reads."""


class Reading(NamedTuple):
    """What a term reads.

    Attributes:
        term: Which variant of which model.
        prompt: Token ids before each answer, at least one.
        answers: Token ids of each answer, at least one each.
    """

    term: Term
    prompt: tuple[int, ...]
    answers: Answers


@dataclass(frozen=True)
class Outputs:
    """What terms say behind the beginnings of answers.

    Attributes:
        places: For each reading, answer and token of the answer, the output that predicts the token.
        rows: The outputs: [hidden] if the model's head is a plain matrix, else [V'], on the model's device.
        num_cached: For each reading, tokens of its variant's first prompt that memory held already.
    """

    places: list[list[list[Place]]]
    rows: dict[Place, Tensor]
    num_cached: list[int]


def term_outputs(family: ModelFamily, memory: KVMemory, readings: Sequence[Reading]) -> Steps[Outputs]:
    """Outputs that predict the tokens of given answers. What texts share at their beginning runs once.

    Raises:
        DecodingError: A model's outputs are NaN.
    """
    tree_of = _trees(readings)
    rows: dict[Place, Tensor] = {}
    with allocated(list(dict.fromkeys(tree_of.values())), memory) as place:
        num_cached = [tree_of[_reader(term)].prompt.num_computed_tokens for term, *_ in readings]
        for index, (model, pool) in enumerate(zip(family.models, place.pools, strict=True)):
            own = {reader: tree for reader, tree in tree_of.items() if reader.model == index}
            if own:
                outputs = yield from tree_outputs(model, pool, place.blocks, own)
                rows |= {(index, *key): row for key, row in outputs.items()}
    places = [
        [
            [(term.model, term.variant, term.begin, number) for number in numbers]
            for numbers in tree_of[_reader(term)].numbers[prompt, answers]
        ]
        for term, prompt, answers in readings
    ]
    return Outputs(places, rows, num_cached)


def _reader(term: Term) -> Term:
    """The term, whatever its prompt is called."""
    return replace(term, prompt_name="")


def _trees(readings: Sequence[Reading]) -> dict[Term, TextTree]:
    """What each variant of each model reads. Those that read the same texts share a tree, and its blocks."""
    read_by: dict[Term, dict[Texts, None]] = {}
    for term, prompt, answers in readings:
        read_by.setdefault(_reader(term), {})[prompt, answers] = None
    readers: dict[tuple[Texts, ...], list[Term]] = {}
    for reader, own in read_by.items():
        readers.setdefault(tuple(own), []).append(reader)
    trees = [TextTree(terms, texts) for texts, terms in readers.items()]
    return {reader: tree for tree in trees for reader in tree.readers}
