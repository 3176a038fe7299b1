"""Where activated adapters (aLoRA, Greenewald et al. 2025) begin to act, and who runs what comes before.

Before its invocation, a model with an activated adapter computes what the model without it does. So whole
blocks of keys and values there are the model's own: computed once, and read by all of its activated adapters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from langchain_eft.engine.models.family import ModelFamily, Term


def activated(term: Term, family: ModelFamily, prompt: Sequence[int]) -> Term:
    """A term as it reads a prompt: its adapter acts from the last invocation on, or not at all, as in PEFT.

    Args:
        term: A term of the family.
        family: The models.
        prompt: Token ids of the prompt that the term reads.
    """
    invocation = family.models[term.model].invocations.get(term.variant)
    if invocation is None:
        return term
    begin = _last_occurrence(invocation, prompt)
    return term.unadapted if begin is None else replace(term, begin=begin)


def _last_occurrence(wanted: tuple[int, ...], tokens: Sequence[int]) -> int | None:
    """Index of the first token of the last occurrence of some tokens, or None if there is none."""
    last = len(tokens) - len(wanted)
    return next((i for i in range(last, -1, -1) if tuple(tokens[i : i + len(wanted)]) == wanted), None)


class Share(NamedTuple):
    """The tokens of a text that a term runs.

    Attributes:
        term: The term.
        first: Position of the first of them, where a block begins.
        end: The position behind the last of them; None runs all.
    """

    term: Term
    first: int
    end: int | None = None


def shares(readers: Iterable[Term], block_size: int) -> list[Share]:
    """Which tokens each term runs of what it reads, and what models run for their activated adapters.

    Args:
        readers: The terms. Those with the same `prompt_name` read the same.
        block_size: Positions per block.

    Returns:
        A share for each reader, and one for each model that does not read what its adapters do. Those that
        others continue come first.
    """
    own = [Share(term, first_own_block(term, block_size) * block_size) for term in readers]
    ends: dict[Term, int] = {}
    for term, first, _ in own:
        if first:
            ends[term.unadapted] = max(first, ends.get(term.unadapted, 0))
    read = {term for term, *_ in own}
    lent = [Share(term, 0, end) for term, end in ends.items() if term not in read]
    return [*lent, *sorted(own, key=lambda share: share.first > 0)]


def first_own_block(term: Term, block_size: int) -> int:
    """Number of the first block whose keys and values are a term's own; those before are its model's."""
    return term.begin // block_size
