"""Which sequences run in the next round, and how many tokens of each."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from langchain_eft.engine.kv_cache import BlockAllocator
from langchain_eft.engine.sequence import Sequence


@dataclass(frozen=True)
class ScheduledRow:
    """One sequence's part of a round.

    Attributes:
        sequence: Whose tokens.
        count: How many of its pending tokens are computed.
    """

    sequence: Sequence
    count: int

    @property
    def emits(self) -> bool:
        """Whether the round reaches the last known token, so that the next one can be sampled."""
        return self.count == self.sequence.pending


class Scheduler:
    """Continuous batching: sequences join and leave at every round, first come, first served.

    Each round gives every decoding sequence its token first and spends the rest of the token budget on
    prompts, in chunks. When memory runs short the youngest sequence is preempted: it gives up its blocks and
    is computed again later, so nothing is lost and the oldest always finishes.
    """

    def __init__(self, allocator: BlockAllocator, max_batch_size: int, token_budget: int) -> None:
        self._allocator = allocator
        self._max_batch_size = max_batch_size
        self._token_budget = token_budget
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.append(sequence)

    def remove_ended(self) -> None:
        """Free the blocks of every finished or cancelled sequence."""
        for sequence in self.running:
            if sequence.finished or sequence.generation.cancelled:
                self._allocator.release(sequence.block_table)
        self.running = [s for s in self.running if not (s.finished or s.generation.cancelled)]
        self.waiting = deque(s for s in self.waiting if not s.generation.cancelled)

    def schedule(self) -> list[ScheduledRow]:
        """Choose the next round's rows and give them their memory; empty when there is nothing to do."""
        while self.waiting and len(self.running) < self._max_batch_size and self._fits(self.waiting[0]):
            self.running.append(self.waiting.popleft())
        budget = self._token_budget
        rows: list[ScheduledRow] = []
        # A stable sort: decoding rows (one pending token) first, otherwise oldest first.
        for sequence in sorted(self.running, key=lambda s: s.pending > 1):
            count = min(sequence.pending, budget)
            if sequence in self.running and count and self._make_room(sequence, count):
                rows.append(ScheduledRow(sequence, count))
                budget -= count
        return [row for row in rows if row.sequence in self.running]

    def _fits(self, sequence: Sequence) -> bool:
        """Whether the sequence's known tokens fit beside what is running (always, when nothing is)."""
        needed = self._allocator.blocks_for(len(sequence.tokens) + 1)
        return not self.running or needed <= self._allocator.free_blocks

    def _make_room(self, sequence: Sequence, count: int) -> bool:
        while not self._allocator.grow(sequence.block_table, sequence.computed + count):
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._allocator.release(sequence.block_table)
        sequence.computed = 0
        self.waiting.appendleft(sequence)
