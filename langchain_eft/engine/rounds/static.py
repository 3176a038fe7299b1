"""Rounds over tensors in fixed places, which CUDA graphs can record.

No value is read back to the host, and no value decides which operations run. So the two halves of a round can
be recorded as CUDA graphs; without a GPU they are called as functions. `RoundShape` decides which operations
run, and it is the key of a recording.

Rows are padded to the shape. Rows that do not exist, draft tokens that a row does not have, and terms that a
row's mixture lacks become padding: their keys and values are not stored, and their logits are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.models.causal_model import joined, project
from langchain_eft.engine.rounds.decoding_round import DecodingRound
from langchain_eft.engine.rounds.layout import TokenLayout, lay_out
from langchain_eft.engine.rounds.progress import RowProgress
from langchain_eft.engine.rounds.round_state import RoundState
from langchain_eft.engine.rounds.shape import RoundShape, TermSlot
from langchain_eft.engine.rounds.transfer import paging_fields


class RoundLogits:
    """float32 memory for the logits of rounds that draft. Rounds follow each other, so all share it."""

    def __init__(self, device: torch.device) -> None:
        self._memory = torch.zeros(0, device=device)

    def view(self, count: int, vocabulary_size: int) -> Tensor:
        """The memory as [count, vocabulary_size]; its content is undefined."""
        size = count * vocabulary_size
        if self._memory.numel() < size:
            self._memory = torch.zeros(size, device=self._memory.device)
        return self._memory[:size].view(count, vocabulary_size)


@dataclass(frozen=True)
class _Part:
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


class StaticRound(DecodingRound):
    """The padded rounds of one shape.

    Attributes:
        occurred: Whether a round of this shape has run.
    """

    def __init__(self, shape: RoundShape, state: RoundState, memory: RoundLogits) -> None:
        super().__init__(shape, state, paging_fields(shape, state.block_size))
        self.occurred = False
        self._logits: Tensor | None = None
        self._draft_index = self._draft_entries()
        self._at_drafts, self._after_drafts, num_logits = self._verify_entries()
        if shape.drafting:
            self._logits = memory.view(num_logits, self.vocabulary_size)

    def _begin(self) -> RowProgress:
        progress = super()._begin()
        # Position of each row's last token in what each term reads, [S, B].
        self._last = self._in["start"] + (progress.num_output_tokens - 1)
        # Which drafted token each row has at each step, [K + 1, B].
        self._made = self._steps[:, None] < progress.count
        return progress

    def _run_draft(self, step: int, tokens: Tensor, progress: RowProgress) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        offset, size = self._steps[step].expand(self.shape.rows), self._logits_of_a_draft_step
        runs = [slots for slots in _runs(self.shape.slots) if self._role(slots) == "drafts"]
        parts = [[_Part(slots, tokens[:, None], offset, self._made[step])] for slots in runs]
        assert self._logits is not None  # noqa: S101  (the round drafts)
        return self._run(parts, self._logits[step * size : (step + 1) * size]), self._draft_index

    @property
    def _logits_of_a_draft_step(self) -> int:
        return len(self.draft_slots) * self.shape.rows

    def _run_verify(self, progress: RowProgress) -> tuple[Tensor, Tensor]:
        shape, positions = self.shape, self.shape.positions
        tokens = torch.cat([progress.last[:, None], self.draft_tokens], 1)
        queries = torch.where(progress.alive, progress.count + 1, 0)
        no_offset = self._steps[0].expand(shape.rows)
        work: list[list[_Part]] = []
        for slots in _runs(shape.slots):
            if shape.drafting and self._role(slots) == "drafts":
                # Drafting has not run the last draft token, or, without one, the last known token.
                missing = tokens.gather(1, progress.count[:, None])
                part = _Part(slots, missing, progress.count, progress.alive)
            else:
                part = _Part(slots, tokens, no_offset, queries)
            if work and shape.slots[work[-1][0].slots.start].model == shape.slots[slots.start].model:
                work[-1].append(part)
            else:
                work.append([part])
        if self._logits is None:
            logits = self._run(work)
        else:  # those of the drafts are before them
            logits = self._logits
            self._run(work, logits[shape.num_draft_tokens * self._logits_of_a_draft_step :])
        index = torch.where(self._made.t(), self._at_drafts, self._after_drafts)
        # Where a row has no term, the base's logits stand in, with coefficient 0.
        base = self._in["base"][None, :, None].expand(1, -1, positions)
        return logits, torch.where(self._in["used"][..., None], index, index.gather(0, base))

    def _draft_entries(self) -> Tensor:
        """[B, D] int64, which of a draft pass's logits belong to each row and term."""
        return (
            torch.arange(len(self.draft_slots), device=self._rows.device) * self.shape.rows
            + self._rows[:, None]
        )

    def _verify_entries(self) -> tuple[Tensor, Tensor, int]:
        """Two of [S, B, K + 1] int64, which logits of a round belong to each slot, row and step.

        The first holds at the steps of a row's draft tokens, the second after them. Then how many logits the
        round has.
        """
        shape, rows, positions = self.shape, self.shape.rows, self.shape.positions
        num_draft_slots = len(self.draft_slots)
        start = shape.num_draft_tokens * self._logits_of_a_draft_step if shape.drafting else 0
        drafted = 0
        at_drafts: list[Tensor] = []
        after_drafts: list[Tensor] = []
        for slots in _runs(shape.slots):
            count = slots.stop - slots.start
            term = torch.arange(count, device=self._rows.device)[:, None, None]
            of_row = term * rows + self._rows[:, None]
            if shape.drafting and self._role(slots) == "drafts":
                at_drafts.append((self._steps * num_draft_slots + drafted) * rows + of_row)
                after_drafts.append((start + of_row).expand(-1, -1, positions))
                start, drafted = start + count * rows, drafted + count
            else:
                at_drafts.append(start + of_row * positions + self._steps)
                after_drafts.append(at_drafts[-1])
                start += count * rows * positions
        return torch.cat(at_drafts), torch.cat(after_drafts), start

    def _role(self, slots: slice) -> str:
        slot: TermSlot = self.shape.slots[slots.start]
        return slot.role

    def _run(self, work: Sequence[Sequence[_Part]], out: Tensor | None = None) -> Tensor:
        """[N, V] logits of all parts, those of one model together, in order; in `out` if it is given."""
        pieces = [self._forward(parts) for parts in work]
        return project(self._state.streams.run(pieces), self.vocabulary_size, self._state.device, out)

    def _forward(self, parts: Sequence[_Part]) -> Callable[[], tuple[Tensor | None, Tensor]]:
        """One model's pass over the tokens of some of its slots."""
        state = self._state
        index = self.shape.slots[parts[0].slots.start].model
        model = state.family.models[index]
        sizes = [(part.slots.stop - part.slots.start) * part.tokens.numel() for part in parts]

        def run() -> tuple[Tensor | None, Tensor]:
            layouts = [self._lay_out(part) for part in parts]
            starts = accumulate(sizes[:-1], initial=0)
            paged = [
                PagedRows(
                    block_table=self._in["table"][part.slots].flatten(0, 1),
                    starts=None if len(parts) == 1 else _starts(laid.queries, part.tokens.shape[1], start),
                    queries=laid.queries,
                    lengths=laid.lengths,
                    block_size=state.block_size,
                    max_queries=part.tokens.shape[1],
                    max_length=self.shape.max_context,
                )
                for part, laid, start in zip(parts, layouts, starts, strict=True)
            ]
            batch = ForwardBatch(
                ids=joined([laid.ids for laid in layouts])[None],
                positions=joined([laid.positions for laid in layouts])[None],
                variants=joined([laid.variants for laid in layouts]),
                pool=state.pools[index],
                block_size=state.block_size,
                paged=paged,
            )
            return model.head, model(batch, range(model.variants))

        return run

    def _lay_out(self, part: _Part) -> TokenLayout:
        return lay_out(
            part.tokens,
            self._in["start"][part.slots],
            self._in["prompt_end"][part.slots],
            self._last[part.slots],
            part.offset,
            part.queries,
            self._in["used"][part.slots],
            self._in["variant"][part.slots],
        )


def _runs(slots: Sequence[TermSlot]) -> list[slice]:
    """Where each kind of slot lies among the sorted slots."""
    starts = [i for i, slot in enumerate(slots) if not i or slots[i - 1] != slot]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(slots)], strict=True)]


def _starts(queries: Tensor, count: int, start: int) -> Tensor:
    """[rows] int32, where each row of `count` tokens begins on the packed axis."""
    rows = torch.arange(queries.numel(), dtype=torch.int32, device=queries.device)
    return rows * count + start
