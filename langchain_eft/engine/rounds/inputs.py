"""What the host tells the device about a round: which rows, and how they draft. The table has the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from langchain_eft.engine.rounds.shape import RoundShape, drafted_shape, kind_of, shape_of
from langchain_eft.engine.rounds.staging import Fields, PackedTensors
from langchain_eft.engine.scheduling.draft import Draft
from langchain_eft.engine.scheduling.request_state import RequestState


def input_fields(shape: RoundShape, terms: int, vocabulary: int) -> Fields:
    """What the host tells the device each round. All zeros is a round without rows.

    Args:
        shape: The round's.
        terms: T, most terms of a row.
        vocabulary: V.
    """
    rows, positions = shape.rows, shape.positions
    fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "rows": ((rows,), torch.int64),  # of the table
        "slot": ((rows, terms), torch.int64),  # of each of a row's terms
        "term": ((len(shape.slots), rows), torch.int64),  # of the row, in each slot
        "used": ((len(shape.slots), rows), torch.bool),  # whether there is one
        "count": ((rows,), torch.int64),  # draft tokens of each row
        "given": ((rows, shape.num_draft_tokens), torch.int64),  # plus 1; 0 where small models draft
    }
    if shape.grammar:
        fields["allowed"] = ((rows, positions, -(-vocabulary // 32)), torch.int32)  # bits
    if shape.penalties:
        fields["history"] = ((rows, shape.max_context), torch.int64)  # prompt and answer
    if shape.biases:
        fields["biased"] = ((rows, shape.biases), torch.int64)
        fields["bias"] = ((rows, shape.biases), torch.float32)
    return fields


class Rows:
    """The rows of a round, in order. Most rounds have those of the round before.

    Attributes:
        states: The requests.

    Args:
        states: The requests.
    """

    def __init__(self, states: Sequence[RequestState]) -> None:
        self.states = list(states)
        self._kind, slots_of_rows = kind_of(states)
        self._shapes: dict[tuple[int, bool, int], RoundShape] = {}
        # In place of a term that a row lacks stands its first one.
        longest = max(map(len, slots_of_rows))
        self._slot = np.array([[*slots, *slots[:1] * (longest - len(slots))] for slots in slots_of_rows])
        self._term = np.zeros((len(self._kind.slots), len(self.states)), np.int64)
        self._used = np.zeros(self._term.shape, np.bool_)
        for row, slots in enumerate(slots_of_rows):
            self._term[slots, row], self._used[slots, row] = range(len(slots)), True

    def shape(
        self,
        drafts: Mapping[RequestState, Draft],
        unread: Mapping[RequestState, Draft],
        max_rows: int | None,
    ) -> RoundShape:
        """See `shape_of`. Only drafts and contexts change it."""
        key = drafted_shape(drafts, unread)
        if key not in self._shapes:
            self._shapes[key] = shape_of(self._kind, drafts, unread, max_rows)
        return self._shapes[key]

    def write(
        self,
        host: PackedTensors,
        shape: RoundShape,
        rows: Sequence[int],
        drafts: Mapping[RequestState, Draft],
    ) -> None:
        """Fill in `input_fields`, except what grammars allow.

        Args:
            host: The host's block, all zeros.
            shape: The round's.
            rows: The rows of the table.
            drafts: The requests, and how they draft.
        """
        names = ("rows", "slot", "term", "used", "count", "given")
        of_table, slot, term, used, count, given = (host[name].numpy() for name in names)
        size, longest = self._slot.shape
        of_table[:size] = rows
        slot[:size], slot[:size, :longest] = self._slot[:, :1], self._slot
        term[:, :size], used[:, :size] = self._term, self._used
        count[:size] = [draft.count for draft in drafts.values()]
        for row, draft in enumerate(drafts.values()):
            if draft.given_tokens:
                given[row, : draft.count] = [token + 1 for token in draft.given_tokens]
        if shape.penalties or shape.biases:
            self._write_history(host)

    def _write_history(self, host: PackedTensors) -> None:
        """Fill in what penalties and biases need."""
        for row, state in enumerate(self.states):
            params = state.request.sampling
            if params.has_penalties:
                host["history"].numpy()[row, : len(state.tokens)] = state.tokens
            if params.logit_bias:
                host["biased"].numpy()[row, : len(params.logit_bias)] = list(params.logit_bias)
                host["bias"].numpy()[row, : len(params.logit_bias)] = list(params.logit_bias.values())


def write_allowed(
    host: PackedTensors, states: Sequence[RequestState], draft_tokens: Sequence[Sequence[int]]
) -> None:
    """Fill in which tokens the grammars allow after each draft token, as bits.

    Args:
        host: The host's block.
        states: The rows.
        draft_tokens: Of each row.
    """
    allowed = host["allowed"].numpy()
    allowed[:] = -1
    for row, (state, tokens) in enumerate(zip(states, draft_tokens, strict=True)):
        if state.grammar is None:
            continue
        for step in range(len(tokens) + 1):
            allowed[row, step] = state.grammar.bits(tokens[:step])
