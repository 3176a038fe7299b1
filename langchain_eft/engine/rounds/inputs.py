"""What the host tells the device about a round: which rows, and how they draft. The table has the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from langchain_eft.engine.rounds.shape import RoundShape
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


def write_inputs(
    host: PackedTensors,
    shape: RoundShape,
    rows: Sequence[int],
    slots_of_rows: Sequence[Sequence[int]],
    drafts: Mapping[RequestState, Draft],
) -> None:
    """Fill in `input_fields`, except what grammars allow.

    Args:
        host: The host's block, all zeros.
        shape: The round's.
        rows: The requests' rows of the table.
        slots_of_rows: The slot of each of a row's terms.
        drafts: The requests, and how they draft.
    """
    names = ("rows", "slot", "term", "used", "count", "given")
    of_table, slot, term, used, count, given = (host[name].numpy() for name in names)
    of_table[: len(rows)] = rows
    for row, (slots, (state, draft)) in enumerate(zip(slots_of_rows, drafts.items(), strict=True)):
        slot[row] = slots[0]
        slot[row, : len(slots)] = slots
        term[list(slots), row], used[list(slots), row] = range(len(slots)), True
        count[row] = draft.count
        if draft.given_tokens:
            given[row, : draft.count] = [token + 1 for token in draft.given_tokens]
        params = state.request.sampling
        if shape.penalties and params.has_penalties:
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
