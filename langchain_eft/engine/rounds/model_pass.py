"""Forward passes of a round: from tokens of rows to logits, one pass a model.

A round lays its rows out on the device. Where the host may look (`shared.Shared`), padding is dropped.
Chunks of prompts are laid out by the host, which knows their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.decoding.formula_table import Columns, terms_in_order
from langchain_eft.engine.device_kernels import has_kernel
from langchain_eft.engine.models.batch import pack
from langchain_eft.engine.models.causal_model import CausalModel, joined, project
from langchain_eft.engine.recurrence.rows import RecurrentRows, joined_rows
from langchain_eft.engine.recurrence.state_pool import StatePool
from langchain_eft.engine.rounds.layout import TokenLayout, lay_out
from langchain_eft.engine.rounds.prompt_chunks import chunk_passes
from langchain_eft.engine.rounds.row_table import TERM
from langchain_eft.engine.rounds.shape import RoundShape, TermSlot
from langchain_eft.engine.rounds.shared import Shared
from langchain_eft.engine.rounds.staging import PackedTensors
from langchain_eft.engine.scheduling.scheduler import ScheduledRow


class Part(NamedTuple):
    """Tokens that some slots of one model run.

    Attributes:
        slots: Which.
        tokens: [B, n]; where a slot's prompt ends, its own last token stands instead.
        offset: [B] int64, where they begin, counted from the last known token.
        queries: [B] int64 or bool, how many of them are real.
    """

    slots: slice
    tokens: Tensor
    offset: Tensor
    queries: Tensor


class SlotRows(NamedTuple):
    """What each slot reads in each row.

    Attributes:
        used: [S, B] bool, whether the row has a term in the slot.
        variant: [S, B] int64, variant of the model that runs it.
        start: [S, B] int64, tokens before the answer in the prompt that it reads.
        prompt_end: [S, B] int64, the last of them.
        last: [S, B] int64, position of the row's last known token.
        blocks: [S, B, blocks] int32, its keys and values.
        state: [S, B] int64, slot of its recurrent state.
    """

    used: Tensor
    variant: Tensor
    start: Tensor
    prompt_end: Tensor
    last: Tensor
    blocks: Tensor
    state: Tensor

    @classmethod
    def of(
        cls, shape: RoundShape, shared: Shared, inputs: PackedTensors, columns: Columns, length: Tensor
    ) -> SlotRows:
        """What the slots of a round read.

        Args:
            shape: The round's.
            shared: What all rounds share.
            inputs: What the host has told the device.
            columns: [B] rows of the table.
            length: [B] int64, tokens of each answer.
        """
        term = inputs["term"]
        of_slots = columns["terms"].movedim(0, -1).gather(1, term.expand(len(TERM), *term.shape))
        variant, start, prompt_end, prompt, state, first_own = of_slots
        width = -(-shape.max_context // shared.block_size)
        blocks = shared.table.blocks[:, :, :width][inputs["rows"], prompt]
        shift = (variant * shared.num_blocks)[..., None]
        if shared.activates:
            shift = shift * (torch.arange(blocks.shape[-1], device=shift.device) >= first_own[..., None])
        blocks.add_(shift)
        return cls(inputs["used"], variant, start, prompt_end, start + (length - 1), blocks, state)


def runs(slots: Sequence[TermSlot]) -> list[slice]:
    """Where each kind of slot lies among the sorted slots."""
    starts = [i for i, slot in enumerate(slots) if not i or slots[i - 1] != slot]
    return [slice(a, b) for a, b in pairwise([*starts, len(slots)])]


def run_parts(
    parts: Sequence[Part], rows: SlotRows, shape: RoundShape, shared: Shared, out: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Run tokens of rows, one pass a model.

    Args:
        parts: What to run, in the order of their slots.
        rows: What the slots read.
        shape: The round's.
        shared: What all rounds share.
        out: [N, V] float32, which takes the logits, or None.

    Returns:
        [N, V] logits; and, where padding is dropped, for each part [s, B] int64, where those of each slot and
        row begin.
    """
    passes, firsts, end = [], [], 0
    for index, own in groupby(parts, lambda part: shape.slots[part.slots.start].model):
        of_model, layouts, starts = list(own), [], []
        for part in of_model:
            laid, begin = _lay_out(part, rows, drop_padding=shared.host_may_look)
            layouts.append(laid)
            starts.append(begin)
            if begin is not None:
                firsts.append((begin + end).view(-1, shape.rows))
            end += len(laid.ids)
        if not any(len(laid.ids) for laid in layouts):
            continue  # the rows that draft with this model have stopped
        batch = _batch(of_model, layouts, starts, rows, shape, shared, index)
        passes.append(partial(_run, shared.family.models[index], batch, looks=shared.host_may_look))
    logits = project(shared.streams.run(passes), len(shared.family.vocabulary), shared.device, out)
    # A row without tokens begins at logits of others: they must exist, and are not used.
    return logits, [first.clamp(max=end - 1) for first in firsts]


def _lay_out(part: Part, rows: SlotRows, *, drop_padding: bool) -> tuple[TokenLayout, Tensor | None]:
    """The tokens of a part, and, without padding, [s * B] int64, where those of each slot and row begin."""
    slots, count = part.slots, part.tokens.shape[1]
    laid = lay_out(
        part.tokens,
        rows.start[slots],
        rows.prompt_end[slots],
        rows.last[slots],
        part.offset,
        part.queries,
        rows.used[slots],
        rows.variant[slots],
    )
    if not drop_padding:
        return laid, None
    live = (torch.arange(count, device=laid.ids.device) < laid.queries[:, None]).flatten()
    if live.all():
        return laid, torch.arange(0, len(live), count, device=live.device)
    kept = live.nonzero()[:, 0]
    starts = laid.queries.cumsum(0) - laid.queries
    ids, positions, variants = laid.ids[kept], laid.positions[kept], laid.variants[kept]
    return laid._replace(ids=ids, positions=positions, variants=variants), starts


def _batch(
    parts: Sequence[Part],
    layouts: Sequence[TokenLayout],
    starts: Sequence[Tensor | None],
    rows: SlotRows,
    shape: RoundShape,
    shared: Shared,
    model: int,
) -> ForwardBatch:
    """The tokens of one model's pass."""
    paged, recurrent, end = [], [], 0
    states = shared.states[model]
    for part, laid, begin in zip(parts, layouts, starts, strict=True):
        count, begins = part.tokens.shape[1], None
        if begin is not None:
            begins = (begin + end).int()
        elif len(parts) > 1:  # else each row has as many entries as any
            begins = torch.arange(end, end + len(laid.ids), count, dtype=torch.int32, device=laid.ids.device)
        paged.append(
            PagedRows(
                block_table=rows.blocks[part.slots].flatten(0, 1),
                starts=begins,
                queries=laid.queries,
                lengths=laid.lengths,
                block_size=shared.block_size,
                max_queries=count,
                max_length=min(shape.max_context, rows.blocks.shape[-1] * shared.block_size),
            )
        )
        if states is not None:
            at = begin if begin is not None else torch.arange(0, len(laid.ids), count, device=laid.ids.device)
            recurrent.append(_recurrent_rows(part.slots, laid, rows, at + end, states, count))
        end += len(laid.ids)
    return ForwardBatch(
        ids=joined([laid.ids for laid in layouts])[None],
        positions=joined([laid.positions for laid in layouts])[None],
        variants=joined([laid.variants for laid in layouts]),
        pool=shared.pools[model],
        block_size=shared.block_size,
        paged=paged,
        recurrent=joined_rows(recurrent, end) if recurrent else None,
    )


def _recurrent_rows(
    slots: slice, laid: TokenLayout, rows: SlotRows, starts: Tensor, states: StatePool, most: int
) -> RecurrentRows:
    """The tokens of some slots for recurrent layers. What comes before a row's last known token is final."""
    queries = laid.queries.long()
    positions = laid.lengths - queries
    of_slots = rows.state[slots].flatten(), starts, queries, positions, rows.last[slots].flatten()
    return RecurrentRows.of(states, *of_slots, len(laid.ids), most)


def _run(model: CausalModel, batch: ForwardBatch, *, looks: bool) -> tuple[Tensor | None, Tensor]:
    """The output matrix of a model, and what it multiplies."""
    active = sorted(set(batch.variants.tolist())) if looks else range(model.variants)
    return model.head, model(batch.to(model.device), active)


def run_chunks(rows: Sequence[ScheduledRow], shared: Shared, *, terms: int) -> tuple[Tensor, Tensor]:
    """Run what rows have still to compute, one pass a model; on a GPU, activated adapters may need a second.

    Args:
        rows: The rows.
        shared: What all rounds share.
        terms: T.

    Returns:
        [N, V] logits, and [B, 1, T] int64, which of them belong to the terms of each row that emits.
    """
    emitting = [row for row in rows if row.emits]
    places = {
        (row.state, term): (number, 0, place)
        for number, row in enumerate(emitting)
        for place, term in enumerate(terms_in_order(row.state.formula))
    }
    index = torch.zeros(len(emitting), 1, terms, dtype=torch.int64)
    hidden: list[tuple[Tensor | None, Tensor]] = []
    found = 0
    for number, model in enumerate(shared.family.models):
        for chunks in chunk_passes(rows, number, shared, apart=has_kernel(model.device)):
            keep: list[int] = []
            end = 0
            for chunk, row, term, _ in chunks:
                end += len(chunk.tokens)
                if (row.state, term) in places:
                    keep.append(end - 1)
                    index[places[row.state, term]] = found
                    found += 1
            memory = shared.pools[number], shared.block_size, model.device, shared.states[number]
            batch = pack([each.chunk for each in chunks], *memory)
            active = sorted({each.chunk.variant for each in chunks})
            kept = torch.tensor(keep, device=model.device, dtype=torch.int64)
            hidden.append((model.head, model(batch, active, kept)))
    logits = project(hidden, len(shared.family.vocabulary), shared.device)
    for place_, row in enumerate(emitting):  # terms that a row lacks count for nothing
        index[place_, 0, len(row.state.formula.terms) :] = index[place_, 0, 0]
    return logits, index.to(shared.device)
