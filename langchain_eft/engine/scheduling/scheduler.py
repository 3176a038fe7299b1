"""Which sequences run in the next round, and how many tokens of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass

from langchain_eft.engine.scheduling.block_manager import BlockAllocator
from langchain_eft.engine.scheduling.request_state import Sequence


@dataclass(frozen=True)
class ScheduledRow:
    """One sequence's part of a round.

    Attributes:
        sequence: Whose tokens.
        counts: How many of the pending tokens of each context are computed.
    """

    sequence: Sequence
    counts: dict[str, int]

    @property
    def tokens(self) -> int:
        """How many tokens are computed in all contexts."""
        return sum(self.counts.values())

    @property
    def emits(self) -> bool:
        """Whether the round reaches the last known token everywhere, so that the next one can be sampled."""
        return self.tokens == self.sequence.pending

    @property
    def decodes(self) -> bool:
        """Whether only the last known token is computed."""
        return self.emits and self.sequence.decoding


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
                self._release(sequence)
        self.running = [s for s in self.running if not (s.finished or s.generation.cancelled)]
        self.waiting = deque(s for s in self.waiting if not s.generation.cancelled)

    def schedule(self) -> list[ScheduledRow]:
        """Choose the next round's rows and give them their memory; empty when there is nothing to do."""
        self._admit()
        budget = self._token_budget
        rows: list[ScheduledRow] = []
        # A stable sort: decoding rows first, otherwise oldest first.
        order = sorted(self.running, key=lambda s: not s.decoding)
        for i, sequence in enumerate(order):
            share = max(-(-budget // (len(order) - i)), 0)
            if share and sequence.decoding:
                share = sequence.pending
            counts = _divide(share, sequence)
            if sequence in self.running and any(counts.values()) and self._make_room(sequence, counts):
                rows.append(ScheduledRow(sequence, counts))
                budget -= rows[-1].tokens
        return [row for row in rows if row.sequence in self.running]

    def steady(self, sequences: Container[Sequence]) -> bool:
        """Whether nobody but some of these sequences would run in the next round."""
        joining = self.waiting and len(self.running) < self._max_batch_size
        return not joining and all(sequence in sequences for sequence in self.running)

    def reserve(self, sequence: Sequence, drafts: int) -> int:
        """Give a scheduled, decoding sequence memory for its drafts; fewer, where little is free."""
        contexts = sequence.contexts.values()
        while drafts and not self._grow([(c.block_table, len(c.tokens) + drafts) for c in contexts]):
            drafts -= 1
        return drafts

    def remember(self, sequence: Sequence) -> None:
        """Offer the sequence's full blocks to later requests. Only accepted tokens are ever computed ones."""
        for context in sequence.contexts.values():
            keys = context.block_keys(context.computed, self._allocator.block_size)
            for i in range(context.remembered, len(keys)):
                self._allocator.register(context.block_table[i], keys[i])
            context.remembered = len(keys)

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
        missing = set()
        for context in sequence.contexts.values():
            keys = context.block_keys(len(context.tokens) - 1, size)
            missing |= set(next(([key] for key in keys if not self._allocator.knows(key)), []))
        return any(
            not missing.isdisjoint(context.block_keys(len(context.tokens), size)[context.computed // size :])
            for running in self.running
            for context in running.contexts.values()
        )

    def _take_over(self, sequence: Sequence) -> bool:
        """Give the sequence every cached block of its beginnings; False if it does not fit beside the others.

        The last known token is always left to compute: its logits are what comes next.
        """
        size, contexts = self._allocator.block_size, sequence.contexts
        for context in contexts.values():
            blocks = self._allocator.match(context.block_keys(len(context.tokens) - 1, size))
            context.block_table = blocks
            context.remembered = len(blocks)
            context.computed = len(blocks) * size
        missing = self._missing([(c.block_table, len(c.tokens) + 1) for c in contexts.values()])
        if self.running and missing > self._allocator.free_blocks:
            self._release(sequence)
            return False
        if sequence.cached_tokens is None:
            sequence.cached_tokens = {name: context.computed for name, context in contexts.items()}
            self.cached_tokens += sum(sequence.cached_tokens.values())
        return True

    def _missing(self, wanted: list[tuple[list[int], int]]) -> int:
        """Blocks that tables still need to cover so many positions."""
        return sum(max(self._allocator.blocks_for(tokens) - len(table), 0) for table, tokens in wanted)

    def _grow(self, wanted: list[tuple[list[int], int]]) -> bool:
        """Extend all tables until each covers its positions; False, and no change, if memory is short."""
        if self._missing(wanted) > self._allocator.free_blocks:
            return False
        return all(self._allocator.grow(table, tokens) for table, tokens in wanted)

    def _make_room(self, sequence: Sequence, counts: dict[str, int]) -> bool:
        contexts = sequence.contexts
        while not self._grow(
            [(contexts[name].block_table, contexts[name].computed + count) for name, count in counts.items()]
        ):
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)
        self.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        for context in sequence.contexts.values():
            self._allocator.release(context.block_table)
            context.computed = 0


def _divide(tokens: int, sequence: Sequence) -> dict[str, int]:
    """How many tokens of each context to compute: all of them, or else what comes before the last ones.

    The last token of every context waits for the others: their logits are wanted in one round.
    """
    contexts = sequence.contexts
    if tokens >= sequence.pending:
        return {name: context.pending for name, context in contexts.items()}
    counts = {}
    for name, context in contexts.items():
        counts[name] = min(context.pending - 1, tokens)
        tokens -= counts[name]
    return counts
