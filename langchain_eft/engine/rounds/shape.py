"""The shape of a round: everything about it that is not in a tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal

from langchain_eft.engine.decoding.formula import Formula, build_formula
from langchain_eft.engine.decoding.formula_table import terms_in_order
from langchain_eft.engine.decoding.sampling import Filters
from langchain_eft.engine.limits import LONGEST_DRAFT
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.scheduling.draft import Draft
from langchain_eft.engine.scheduling.draft_length import DRAFT_LENGTHS
from langchain_eft.engine.scheduling.request_state import RequestState

MIN_CONTEXT = 1024
"""Smallest bound on the length of a context. The next ones are 8 times as long, so few rounds are recorded.

Kernels follow each row's own length, so a wide bound costs nothing.
"""

PADDED_DRAFT_LENGTHS = (0, *DRAFT_LENGTHS, 12, LONGEST_DRAFT)
"""Draft lengths of padded rounds, beside those that requests demand."""

_COMMON_DRAFT_LENGTHS = (6, 4, 2, 0)


@dataclass(frozen=True, order=True)
class TermSlot:
    """A place for one term of each row.

    Attributes:
        model: The model that runs it.
        role: Whether the term drafts, besides verifying, or only verifies.
    """

    model: int
    role: Literal["drafts", "verifies"]


@dataclass(frozen=True)
class RoundShape:
    """Everything about a round that is not in a tensor. It is the key of a recording.

    Attributes:
        rows: B, rows with padding.
        num_draft_tokens: K, most draft tokens of a row.
        drafting: Whether small models draft; else all draft tokens are given.
        max_context: Bound on the length of every prompt with its answer, draft tokens included.
        slots: S places for terms, sorted.
        filters: Which sampling filters some row needs.
        draft_samples: Whether samples of q are drawn at every position.
        scheduled: Whether the coefficients of some row change with the position.
        conservative: Whether some row up-scales some tokens only.
        nucleus: Whether some row up-scales inside a nucleus only.
        gates: G, most gates of a row.
        grammar: Whether a grammar restricts the tokens of some row.
        penalties: Whether some row has penalties.
        biases: Most biased tokens of a row; 0 if no row has any.
        logprobs: Whether some row reports log-probabilities.
    """

    rows: int
    num_draft_tokens: int
    drafting: bool
    max_context: int
    slots: tuple[TermSlot, ...]
    filters: Filters
    draft_samples: bool
    scheduled: bool
    conservative: bool
    nucleus: bool
    gates: int
    grammar: bool
    penalties: bool
    biases: int
    logprobs: bool

    @property
    def positions(self) -> int:
        """K + 1, positions of a row at which a token is drawn."""
        return self.num_draft_tokens + 1

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """A round looks its shape up many times."""
        return hash(tuple(getattr(self, field.name) for field in fields(self)))


def kind_of(states: Sequence[RequestState]) -> tuple[RoundShape, list[list[int]]]:
    """The shape of a round of some rows without drafts and without padding, except for its `max_context`.

    Returns:
        The shape, and the slot of every term of every row.
    """
    requests = [state.request for state in states]
    params = [request.sampling for request in requests]
    slots, slots_of_rows = arrange([state.formula for state in states])
    filters = Filters.of(params)
    measured = any(request.speculation == "auto" for request in requests)
    shape = RoundShape(
        rows=len(states),
        num_draft_tokens=0,
        drafting=False,
        max_context=MIN_CONTEXT,
        slots=slots,
        filters=filters,
        draft_samples=(filters.sampled or measured) and any(slot.role == "drafts" for slot in slots),
        scheduled=any(len(state.formula.knots) > 1 for state in states),
        conservative=any(state.formula.conservative for state in states),
        nucleus=any(state.formula.has_nucleus for state in states),
        gates=max(len(state.formula.gates) for state in states),
        grammar=any(state.grammar is not None for state in states),
        penalties=any(p.has_penalties for p in params),
        biases=padded(biases) if (biases := max(len(p.logit_bias) for p in params)) else 0,
        logprobs=any(request.top_logprobs is not None for request in requests),
    )
    return shape, slots_of_rows


def shape_of(
    kind: RoundShape,
    drafts: Mapping[RequestState, Draft],
    unread: Mapping[RequestState, Draft],
    max_rows: int | None,
) -> RoundShape:
    """The shape of a round.

    Args:
        kind: `kind_of` its rows.
        drafts: The rows, and how they draft.
        unread: Rows and drafts of the round before, if it has not been read.
        max_rows: Most rows with padding, so that few shapes have to be recorded. None pads nothing.
    """
    num_draft_tokens, drafting, max_context = drafted_shape(drafts, unread)
    shape = replace(kind, num_draft_tokens=num_draft_tokens, drafting=drafting, max_context=max_context)
    if max_rows is None:
        return shape
    lengths = {*PADDED_DRAFT_LENGTHS, *(state.request.speculation for state in drafts)} - {"auto", "off"}
    return replace(
        shape,
        rows=min(padded(shape.rows), max_rows),
        num_draft_tokens=min(k for k in lengths if isinstance(k, int) and k >= shape.num_draft_tokens),
        gates=padded(shape.gates) if shape.gates else 0,
        # One shape serves random rows with and without greedy ones.
        filters=replace(
            shape.filters,
            greedy=True,
            top_k=padded(shape.filters.top_k) if shape.filters.top_k else 0,
        ),
    )


def common_shapes(family: ModelFamily, rows: int) -> list[RoundShape]:
    """Shapes of rounds for one behavior at a time: greedy, and sampled with or without top-p, largest first.

    Args:
        family: The models.
        rows: Rows with padding.
    """
    formulas = [
        build_formula(family.base, family.behaviors, {name: 1.0}, unscaled=family.unscaled is not None)
        for name in family.behaviors
    ]
    kinds = {(arrange([formula])[0], formula.conservative) for formula in formulas}
    return [
        RoundShape(
            rows=rows,
            num_draft_tokens=num_draft_tokens,
            drafting=num_draft_tokens > 0,
            max_context=MIN_CONTEXT,
            slots=slots,
            filters=Filters(greedy=True, sampled=sampled, top_k=0, top_p=top_p, min_p=False),
            draft_samples=True,
            scheduled=False,
            conservative=conservative,
            nucleus=False,
            gates=0,
            grammar=False,
            penalties=False,
            biases=0,
            logprobs=False,
        )
        for num_draft_tokens in _COMMON_DRAFT_LENGTHS
        for sampled, top_p in ((True, True), (True, False), (False, False))
        for slots, conservative in sorted(kinds)
        if any(slot.role == "drafts" for slot in slots)
    ]


def arrange(formulas: Sequence[Formula[Term]]) -> tuple[tuple[TermSlot, ...], list[list[int]]]:
    """Slots that hold the terms of every row, no more of each kind than some row needs.

    Returns:
        The slots, sorted, and for every formula the slot of each of its terms.
    """
    kinds_of_rows = [
        [
            TermSlot(term.model, "drafts" if term in f.draft_terms else "verifies")
            for term in terms_in_order(f)
        ]
        for f in formulas
    ]
    needed: Counter[TermSlot] = Counter()
    for kinds in kinds_of_rows:
        needed |= Counter(kinds)
    slots = tuple(sorted(needed.elements()))
    return slots, [_fill(slots, kinds) for kinds in kinds_of_rows]


def drafted_shape(
    drafts: Mapping[RequestState, Draft], unread: Mapping[RequestState, Draft]
) -> tuple[int, bool, int]:
    """What drafts decide of a shape: K, whether small models draft, and the bound of the contexts."""
    longest = max(
        longest_context(state, draft) + (unread[state].count + 1 if state in unread else 0)
        for state, draft in drafts.items()
    )
    return (
        max(draft.count for draft in drafts.values()),
        any(draft.runs_model for draft in drafts.values()),
        _context_bound(longest),
    )


def longest_context(state: RequestState, draft: Draft) -> int:
    """Tokens of a row's longest prompt with its answer and its draft."""
    return max(len(prompt.tokens) for prompt in state.prompts.values()) + draft.count


def _context_bound(longest: int) -> int:
    bound = MIN_CONTEXT
    while bound < longest:
        bound *= 8
    return bound


def padded(number: int) -> int:
    """The smallest power of two that is not less."""
    return 1 << max(number - 1, 0).bit_length()


def _fill(slots: Sequence[TermSlot], kinds: Sequence[TermSlot]) -> list[int]:
    """The next free slot of its kind for each of a row's terms."""
    free = {kind: slots.index(kind) for kind in kinds}
    taken = []
    for kind in kinds:
        taken.append(free[kind])
        free[kind] += 1
    return taken
