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

    Each round gives every decoding sequence its token first and shares the rest of the token budget among
    the prompts, in chunks. When memory runs short the youngest sequence is preempted: it gives up its blocks
    and is computed again later, so nothing is lost and the oldest always finishes.

    Attributes:
        waiting: Sequences that have not begun, and preempted ones.
        running: Sequences with memory, oldest first.
        cached_tokens: Tokens of prompts that were in memory already.
        preemptions: How often a sequence gave up its memory.
    """

    def __init__(self, allocator: BlockAllocator, max_batch_size: int, token_budget: int) -> None:
        self._allocator = allocator
        self._max_batch_size = max_batch_size
        self._token_budget = token_budget
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.cached_tokens = self.preemptions = 0

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
        self._admit()
        budget = self._token_budget
        rows: list[ScheduledRow] = []
        # A stable sort: decoding rows (one pending token) first, otherwise oldest first.
        order = sorted(self.running, key=lambda s: s.pending > 1)
        for i, sequence in enumerate(order):
            share = -(-budget // (len(order) - i))
            count = min(sequence.pending, share)
            if sequence in self.running and count and self._make_room(sequence, count):
                rows.append(ScheduledRow(sequence, count))
                budget -= count
        return [row for row in rows if row.sequence in self.running]

    def reserve(self, sequence: Sequence, drafts: int) -> int:
        """Give a scheduled, decoding sequence memory for its drafts; fewer, where little is free."""
        while drafts and not self._allocator.grow(sequence.block_table, len(sequence.tokens) + drafts):
            drafts -= 1
        return drafts

    def remember(self, sequence: Sequence) -> None:
        """Offer the sequence's full blocks to later requests. Only accepted tokens are ever computed ones."""
        keys = sequence.block_keys(sequence.computed, self._allocator.block_size)
        for i in range(sequence.remembered, len(keys)):
            self._allocator.register(sequence.block_table[i], keys[i])
        sequence.remembered = len(keys)

    def _admit(self) -> None:
        """Let waiting sequences run, in order; one whose beginning is just being computed waits for it."""
        for sequence in list(self.waiting):
            if len(self.running) == self._max_batch_size:
                break
            if self._begins_like_a_prefill(sequence):
                continue
            if not self._take_over(sequence):
                break
            self.waiting.remove(sequence)
            self.running.append(sequence)

    def _begins_like_a_prefill(self, sequence: Sequence) -> bool:
        size = self._allocator.block_size
        keys = sequence.block_keys(len(sequence.tokens) - 1, size)
        missing = next((key for key in keys if not self._allocator.knows(key)), None)
        return missing is not None and any(
            missing in s.block_keys(len(s.tokens), size)[s.computed // size :] for s in self.running
        )

    def _take_over(self, sequence: Sequence) -> bool:
        """Give the sequence every cached block of its beginning; False if it does not fit beside the others.

        The last known token is always left to compute: its logits are what comes next.
        """
        size = self._allocator.block_size
        blocks = self._allocator.match(sequence.block_keys(len(sequence.tokens) - 1, size))
        needed = self._allocator.blocks_for(len(sequence.tokens) + 1) - len(blocks)
        if self.running and needed > self._allocator.free_blocks:
            self._allocator.release(blocks)
            return False
        sequence.block_table = blocks
        sequence.remembered = len(blocks)
        sequence.computed = len(blocks) * size
        if sequence.cached_tokens is None:
            sequence.cached_tokens = sequence.computed
            self.cached_tokens += sequence.computed
        return True

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
        self.preemptions += 1
