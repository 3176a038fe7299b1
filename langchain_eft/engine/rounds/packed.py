"""Rounds that run exactly the tokens that there are: prompts, traced rows, and every round on a CPU.

Nothing is padded, so a row may compute any part of its prompt. The host looks at each draft token, so a row
stops drafting at the end of its answer, and a grammar restricts draft tokens.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from langchain_eft.engine.decoding.sampling import Draw, Sampling, draw
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import joined, project
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.rounds.decoding_round import DecodingRound, where_finite
from langchain_eft.engine.rounds.progress import RowProgress
from langchain_eft.engine.rounds.round_state import Positions, RoundState
from langchain_eft.engine.rounds.shape import RoundShape
from langchain_eft.engine.scheduling.draft import Draft
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.scheduling.scheduler import ScheduledRow


@dataclass(frozen=True)
class Work:
    """Tokens that one term has to run for one request.

    Attributes:
        state: The request.
        term: Which variant of which model.
        tokens: Token ids.
        start: Index of the first of them in the term's prompt and answer.
        steps: Steps of the round, 0 to K, whose tokens the last of them predict.
    """

    state: RequestState
    term: Term
    tokens: list[int]
    start: int
    steps: range


class PackedRound(DecodingRound):
    """The rounds of one exact shape.

    Attributes:
        row_of: Row of each request that emits.
        draft_passes: Rows and seconds of each draft pass.
        logits: [N, V] all logits of the round, until it is cleared.
        index: [S, B, K + 1] int64, which of them belong to a slot, row and step.
        logp: [R, V] log p up to a constant.
        opened: [R, G] which gates are open.
    """

    row_of: dict[RequestState, int]
    draft_passes: list[tuple[int, float]]
    _scheduled: Sequence[ScheduledRow]
    _drafts: Mapping[RequestState, Draft]
    _computed: list[Tensor]
    _drawn: list[Draw]

    def __init__(self, shape: RoundShape, state: RoundState) -> None:
        super().__init__(shape, state)
        self.clear()

    def begin(
        self,
        rows: Sequence[ScheduledRow],
        slots_of_rows: Sequence[Sequence[int]],
        drafts: Mapping[RequestState, Draft],
    ) -> None:
        """Take the rows of the next round.

        Args:
            rows: All of them.
            slots_of_rows: For those that emit, the slot of every term.
            drafts: For those that emit, how they draft.
        """
        self._scheduled, self._drafts = rows, drafts
        self.row_of = {state: row for row, state in enumerate(drafts)}
        self._slots = [
            dict(zip(state.formula.terms, slots, strict=True))
            for state, slots in zip(drafts, slots_of_rows, strict=True)
        ]
        shape = self.shape
        self._numbers = np.zeros((len(shape.slots), shape.rows, shape.positions), np.int64)

    def clear(self) -> None:
        """Free everything that belongs to the rows of the last round."""
        self._scheduled = []
        self._drafts = {}
        self.row_of = {}
        self.draft_passes = []
        self._computed = []
        self._drawn = []
        self._positions = Positions(self.shape)
        self.logits = self.index = self.logp = self.opened = torch.empty(0)

    def slot_of(self, state: RequestState, term: Term) -> int:
        """The slot of a row's term."""
        return self._slots[self.row_of[state]][term]

    def first_position(self, state: RequestState) -> int:
        """Which of the R positions is a row's first."""
        start, live = self.row_of[state] * self.shape.positions, self._positions.live
        return start if live is None else int((live < start).sum())

    def draft(self) -> None:
        """Draft with the small models; rows with given draft tokens run nothing."""
        self._take_given()
        super().draft()

    def _run_draft(self, step: int, tokens: Tensor, progress: RowProgress) -> tuple[Tensor, Tensor]:
        started, counts = time.perf_counter(), progress.count.tolist()
        rows = [
            (state, last)
            for row, (last, (state, draft)) in enumerate(
                zip(tokens.tolist(), self._drafts.items(), strict=True)
            )
            if draft.source == "model" and step < counts[row]
        ]
        before = sum(map(len, self._computed))
        logits = self._compute(
            [
                Work(
                    state,
                    term,
                    # Prompts may end in different tokens.
                    [last if step else state.prompts[term.prompt_name].tokens[-1]],
                    _index_before(state, term, step),
                    range(step, step + 1),
                )
                for state, last in rows
                for term in state.formula.draft_terms
            ]
        )
        self._pass = len(rows), started
        index = (self._numbers[self.draft_slots, :, step].T - before).clip(min=0)
        return logits, torch.from_numpy(index).to(logits.device)

    def _draw_drafted(self, q: Tensor, sampling: Sampling) -> Tensor:
        self._drawn.append(draw(q, sampling))
        return self._drawn[-1].tokens

    def _allow_drafted(self, logits: Tensor, step: int) -> Tensor:
        if self.shape.grammar:
            for (state, row), tokens in zip(
                self.row_of.items(), self.draft_tokens[:, :step].tolist(), strict=True
            ):
                if state.grammar is not None:
                    allowed = state.grammar.mask(tokens).to(logits.device)
                    logits[row].masked_fill_(~allowed, float("-inf"))
        return logits

    def _stop_drafting(self, step: int, tokens: Tensor) -> bool:
        counts: list[int] = self._in["count"].tolist()
        drafting = False
        for row, ((state, draft), last) in enumerate(zip(self._drafts.items(), tokens.tolist(), strict=True)):
            if draft.source == "model":
                if state.ends_with(last):
                    counts[row] = min(counts[row], step + 1)
                drafting |= counts[row] > step + 1
        self._in["count"].copy_(torch.tensor(counts))
        rows, started = self._pass
        self.draft_passes.append((rows, time.perf_counter() - started))
        return not drafting

    def _run_verify(self, progress: RowProgress) -> tuple[Tensor, Tensor]:
        counts = progress.count.tolist()
        work: list[Work] = []
        for scheduled in self._scheduled:
            row = self.row_of.get(scheduled.state)
            tokens = [] if row is None else self.draft_tokens[row, : counts[row]].tolist()
            work += verify_work(scheduled, self._drafts.get(scheduled.state), tokens)
        self._compute(work)
        self.logits = joined(self._computed)
        self.index = torch.from_numpy(self._numbers).to(self.logits.device)
        return self.logits, self.index

    def _live_positions(self, progress: RowProgress) -> Tensor | None:
        live = (self._steps <= progress.count[:, None]).flatten()
        return None if bool(live.all()) else live.nonzero()[:, 0]

    def _target(self, logits: Tensor, index: Tensor) -> Tensor:
        self.logp = super()._target(logits, index)
        return self.logp

    def _opened(self, logits: Tensor, index: Tensor) -> Tensor:
        self.opened = super()._opened(logits, index)
        return self.opened

    def _draw_samples(
        self,
        logits: Tensor,
        index: Tensor,
        target: Tensor,
        drafts: Tensor,
        sampling: Sampling,
        progress: RowProgress,
    ) -> Draw:
        """Those that drafting has drawn are not drawn again."""
        if not self._drawn or self.shape.grammar or self.shape.penalties or self.shape.biases:
            return super()._draw_samples(logits, index, target, drafts, sampling, progress)
        positions = self.shape.positions
        live = self._positions.live
        if live is None:
            live = torch.arange(self.shape.rows * positions, device=logits.device)
        by_model = [draft.source == "model" for draft in self._drafts.values()]
        row, step = live // positions, live % positions
        drafted = torch.tensor(by_model, device=live.device)[row] & (step < progress.count[row])
        rest = (~drafted).nonzero()[:, 0]
        entries, weights = (
            self._positions.by_position(x.index_select(0, self._draft_slots))[rest]
            for x in (index, self._in["draft"])
        )
        q = where_finite(drafts[rest], self._combine(logits, entries, weights), target[rest])
        drawn = draw(q, sampling.of_rows(rest))
        tokens, probs = torch.empty_like(sampling.positions), None
        tokens[rest] = drawn.tokens
        if drawn.probs is not None:
            probs = drawn.probs.new_empty(len(tokens), self.vocabulary_size)
            probs[rest] = drawn.probs
        for number, earlier in enumerate(self._drawn):
            where = (drafted & (step == number)).nonzero()[:, 0]
            tokens[where] = earlier.tokens[row[where]]
            if probs is not None and earlier.probs is not None:
                probs[where] = earlier.probs[row[where]]
        return Draw(tokens, probs)

    def _compute(self, work: Sequence[Work]) -> Tensor:
        """[N, V] logits of work; `_numbers` then says where they are among all logits of the round."""
        logits, firsts = forward(work, self._state)
        before = sum(map(len, self._computed))
        for piece, first in zip(work, firsts, strict=True):
            if piece.steps:
                slot, row = self.slot_of(piece.state, piece.term), self.row_of[piece.state]
                numbers = range(before + first, before + first + len(piece.steps))
                self._numbers[slot, row, piece.steps.start : piece.steps.stop] = numbers
        self._computed.append(logits)
        return logits


def forward(work: Sequence[Work], state: RoundState) -> tuple[Tensor, list[int]]:
    """Run every piece of work, one forward pass per model.

    Returns:
        [N, V] logits, and for every piece the index of its first ones.
    """
    hidden: list[tuple[Tensor | None, Tensor]] = []
    firsts, total = [0] * len(work), 0
    for index, model in enumerate(state.family.models):
        chunks: list[Chunk] = []
        keep: list[int] = []
        end = 0
        for i, piece in enumerate(work):
            if piece.term.model != index:
                continue
            shift = piece.term.variant * state.num_blocks
            blocks = [block + shift for block in piece.state.prompts[piece.term.prompt_name].block_table]
            chunks.append(Chunk(piece.tokens, piece.start, piece.term.variant, blocks))
            end += len(piece.tokens)
            keep.extend(range(end - len(piece.steps), end))
            firsts[i] = total
            total += len(piece.steps)
        if not chunks:
            continue
        batch = pack(chunks, state.pools[index], state.block_size, model.device)
        active = sorted({chunk.variant for chunk in chunks})
        kept = torch.tensor(keep, device=model.device, dtype=torch.int64)
        hidden.append((model.head, model(batch, active, kept)))
    return project(hidden, len(state.family.vocabulary), state.device), firsts


def verify_work(row: ScheduledRow, draft: Draft | None, draft_tokens: Sequence[int]) -> list[Work]:
    """What every term has still to run: uncomputed tokens and draft tokens, less what drafting has run.

    Args:
        row: The request's part of the round.
        draft: How it drafts; None if it does not emit.
        draft_tokens: The tokens that were drafted.
    """
    state, count = row.state, len(draft_tokens)
    drafted = state.formula.draft_terms if draft is not None and draft.source == "model" else ()
    work = []
    for term in state.formula.terms:
        prompt, computed = state.prompts[term.prompt_name], row.counts[term.prompt_name]
        if not computed:
            continue
        start = prompt.num_computed_tokens
        tokens = [*prompt.tokens[start : start + computed], *draft_tokens]
        skip = count if term in drafted else 0
        steps = range(skip, count + 1) if row.emits else range(0)
        work.append(Work(state, term, tokens[skip:], start + skip, steps))
    return work


def _index_before(state: RequestState, term: Term, step: int) -> int:
    """Index, in what a term reads, of the token before a step."""
    return state.prompts[term.prompt_name].index_before(state.num_output_tokens + step)
