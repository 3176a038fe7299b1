"""Which requests run in the next round, with how many tokens of each, and with how much memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from langchain_eft.engine.models.batch import is_final
from langchain_eft.engine.scheduling.block_manager import BlockManager
from langchain_eft.engine.scheduling.draft import Draft
from langchain_eft.engine.scheduling.request_state import RequestState
from langchain_eft.engine.scheduling.speculator import Speculator
from langchain_eft.engine.scheduling.state_slots import StateSlots


@dataclass(frozen=True)
class ScheduledRow:
    """One request's part of a round.

    Attributes:
        state: The request.
        counts: How many uncomputed tokens of each prompt the round computes, by the prompt's name.
    """

    state: RequestState
    counts: dict[str, int]

    @property
    def num_tokens(self) -> int:
        """Tokens that the round computes, over all prompts."""
        return sum(self.counts.values())

    @property
    def emits(self) -> bool:
        """Whether the round reaches the last token of every prompt, so that the next one can be drawn."""
        return self.num_tokens == self.state.num_uncomputed_tokens

    @property
    def decodes(self) -> bool:
        """Whether the round computes nothing but the last token."""
        return self.emits and self.state.decoding


def decoding_row(state: RequestState) -> ScheduledRow:
    """A request's part of a round that computes only its last token."""
    return ScheduledRow(state, {name: p.num_uncomputed_tokens for name, p in state.prompts.items()})


@dataclass(frozen=True)
class Batch:
    """What runs next. Its memory is reserved.

    Attributes:
        drafts: The rows of the next round, and how they draft.
        chunks: Parts of prompts. Where they share a pass with rows that decode, those are among them.
    """

    drafts: dict[RequestState, Draft] = field(default_factory=dict)
    chunks: list[ScheduledRow] = field(default_factory=list)


class Scheduler:
    """Continuous batching: requests join and leave at every round, first come, first served.

    Every decoding request gets its token in each round. Prompts share a token budget in chunks. When memory
    runs short, the youngest request is preempted: it frees its blocks and is computed again later. So nothing
    is lost, and the oldest request always finishes.

    Attributes:
        waiting: Requests that have not begun, and preempted ones.
        running: Requests with memory, oldest first.
        cached_tokens: Prompt tokens that the prefix cache held already.
        preemptions: How often a request gave up its memory.

    Args:
        blocks: The memory.
        speculator: Decides how rows draft.
        max_batch_size: Most requests that run.
        token_budget: Most tokens of a pass over prompts.
        mixes: Whether rows that decode share the passes of prompts, without drafts: on a CPU one pass over
            all is cheaper than two.
        slots: Memory for recurrent states, if a model has such.
    """

    def __init__(
        self,
        blocks: BlockManager,
        speculator: Speculator,
        max_batch_size: int,
        token_budget: int,
        *,
        mixes: bool,
        slots: StateSlots | None = None,
    ) -> None:
        self._blocks, self._speculator, self._slots = blocks, speculator, slots
        self._max_batch_size, self._token_budget = max_batch_size, token_budget
        self._mixes = mixes
        self.waiting: deque[RequestState] = deque()
        self.running: list[RequestState] = []
        self.cached_tokens = self.preemptions = 0

    def add(self, state: RequestState) -> None:
        """Queue a new request."""
        self.waiting.append(state)

    def remove_ended(self) -> None:
        """Free the blocks of every finished or cancelled request."""
        for state in self.running:
            if state.ended:
                self._release(state)
        self.running = [state for state in self.running if not state.ended]
        self.waiting = deque(state for state in self.waiting if not state.ended)

    def schedule(self, unread: Mapping[RequestState, Draft]) -> Batch | None:
        """Choose what runs next and allocate its memory.

        Args:
            unread: Rows and drafts of a round that has not been read.

        Returns:
            The next batch, which may be empty; None if the unread round has to be read first.
        """
        self._admit()
        decoding = [state for state in self.running if state.decoding]
        prompts = [state for state in self.running if not state.decoding]
        drafts: dict[RequestState, Draft] | None = {}
        if prompts and self._mixes:
            decoding, prompts = [], [*decoding, *prompts]
        if decoding:
            drafts = self._speculator.draft(decoding, unread)
        reserved = None if drafts is None else self._reserve_drafts(drafts, unread)
        chunks = None if reserved is None else self._chunks(prompts, unread)
        if reserved is None or chunks is None:
            return None
        return Batch({state: draft for state, draft in reserved.items() if state in self.running}, chunks)

    def _reserve_drafts(
        self, drafts: Mapping[RequestState, Draft], unread: Mapping[RequestState, Draft]
    ) -> dict[RequestState, Draft] | None:
        """Allocate memory for drafts, and shorten them where little is free; None as in `schedule`."""
        reserved = {}
        for state, draft in drafts.items():
            before = unread[state].count + 1 if state in unread else 0
            while state in self.running:
                count = self._reserve(state, before + draft.count) - before
                if count >= 0:
                    reserved[state] = draft.shortened(count)
                    break
                if unread:
                    return None
                self._preempt(self.running[-1])
        return reserved

    def _chunks(
        self, states: Sequence[RequestState], unread: Mapping[RequestState, Draft]
    ) -> list[ScheduledRow] | None:
        """The next parts of requests, the first ones first; None as in `schedule`."""
        budget, rows = self._token_budget, []
        for i, state in enumerate(states):
            share = max(-(-budget // (len(states) - i)), 0)
            if share and state.decoding:
                share = state.num_uncomputed_tokens
            counts = _divide(share, state)
            if self._slots:
                counts = self._up_to_borders(state, counts)
            if state not in self.running or not any(counts.values()):
                continue
            prompts = [(state.prompts[name], count) for name, count in counts.items()]
            tables = [(p.block_table, p.num_computed_tokens + count) for p, count in prompts]
            if self._missing(tables) > self._blocks.num_free_blocks and unread:
                return None
            if self._make_room(state, tables):
                rows.append(ScheduledRow(state, counts))
                budget -= rows[-1].num_tokens
        return [row for row in rows if row.state in self.running]

    def _up_to_borders(self, state: RequestState, counts: Mapping[str, int]) -> dict[str, int]:
        """End parts of prompts at the borders of blocks: the recurrent states there can be kept."""
        shortened = {}
        for name, count in counts.items():
            prompt, size = state.prompts[name], self._blocks.block_size
            end = min(prompt.num_computed_tokens + count, len(prompt.tokens) - 1)
            up_to_border = end // size * size - prompt.num_computed_tokens
            shortened[name] = up_to_border if is_final(up_to_border) else count
        return shortened

    def cache_full_blocks(self, states: Iterable[RequestState]) -> None:
        """Offer the full blocks of requests to later ones."""
        for state in states:
            for prompt in state.prompts.values():
                prompt.cache_full_blocks(self._blocks, self._slots)

    def _reserve(self, state: RequestState, count: int) -> int:
        """Allocate memory for a row's last token and as many as possible of `count` further ones.

        Returns:
            How many; -1 if there is none for its last token.
        """
        prompts = state.prompts.values()
        while count >= 0 and not self._allocate([(p.block_table, len(p.tokens) + count) for p in prompts]):
            count -= 1
        return count

    def _admit(self) -> None:
        """Let waiting requests run, in order; one whose beginning is being computed now waits for it."""
        if len(self.running) == self._max_batch_size:
            return
        coming = {key for state in self.running for key in self._uncomputed_blocks(state)}
        for state in list(self.waiting):
            if len(self.running) == self._max_batch_size:
                break
            if not coming.isdisjoint(self._missing_blocks(state)):
                continue
            if not self._allocate_with_prefix(state):
                break
            self.waiting.remove(state)
            self.running.append(state)
            coming.update(self._uncomputed_blocks(state))

    def _uncomputed_blocks(self, state: RequestState) -> Iterator[bytes]:
        """Keys of the blocks that a running request is about to compute."""
        size = self._blocks.block_size
        for prompt in state.prompts.values():
            yield from prompt.block_keys(len(prompt.tokens), size)[prompt.num_computed_tokens // size :]

    def _missing_blocks(self, state: RequestState) -> Iterator[bytes]:
        """Key of the next block of each prompt that the prefix cache lacks."""
        for prompt in state.prompts.values():
            keys = prompt.block_keys(len(prompt.tokens) - 1, self._blocks.block_size)
            yield from islice((key for key in keys if not self._blocks.contains(key)), 1)

    def _allocate_with_prefix(self, state: RequestState) -> bool:
        """Give the request every cached block of its beginnings; False if it does not fit beside the others.

        The last known token is never taken from the cache: its logits predict what comes next.
        """
        prompts = state.prompts
        for prompt in prompts.values():
            prompt.take_cached_blocks(len(prompt.tokens) - 1, self._blocks, self._slots)
        missing = self._missing([(p.block_table, len(p.tokens) + 1) for p in prompts.values()])
        if missing > self._blocks.num_free_blocks:
            self._release(state)
            return False
        if state.cached_tokens is None:
            state.cached_tokens = {name: prompt.num_computed_tokens for name, prompt in prompts.items()}
            self.cached_tokens += sum(state.cached_tokens.values())
        return True

    def _missing(self, tables: list[tuple[list[int], int]]) -> int:
        """Blocks that block tables lack to cover so many positions each."""
        return sum(max(self._blocks.blocks_for(tokens) - len(table), 0) for table, tokens in tables)

    def _allocate(self, tables: list[tuple[list[int], int]]) -> bool:
        """Extend all tables until each covers its positions; False, and no change, if memory is short."""
        if self._missing(tables) > self._blocks.num_free_blocks:
            return False
        return all(self._blocks.allocate(table, tokens) for table, tokens in tables)

    def _make_room(self, state: RequestState, tables: list[tuple[list[int], int]]) -> bool:
        """Allocate a row's memory, preempting the youngest requests; False if that includes this one."""
        while not self._allocate(tables):
            youngest = self.running[-1]
            self._preempt(youngest)
            if youngest is state:
                return False
        return True

    def _preempt(self, state: RequestState) -> None:
        self.running.remove(state)
        self._release(state)
        self.waiting.appendleft(state)
        self.preemptions += 1

    def _release(self, state: RequestState) -> None:
        for prompt in state.prompts.values():
            self._blocks.free(prompt.block_table)
            prompt.num_computed_tokens = 0
            if self._slots and prompt.state_slot is not None:
                self._slots.give_back(prompt.state_slot)
                prompt.state_slot = None


def _divide(num_tokens: int, state: RequestState) -> dict[str, int]:
    """How many tokens of each prompt to compute: all of them, or else only what comes before the last ones.

    The last tokens of all prompts are computed in one round, for their logits are combined there.
    """
    prompts = state.prompts
    if num_tokens >= state.num_uncomputed_tokens:
        return {name: prompt.num_uncomputed_tokens for name, prompt in prompts.items()}
    counts = {}
    for name, prompt in prompts.items():
        counts[name] = min(prompt.num_uncomputed_tokens - 1, num_tokens)
        num_tokens -= counts[name]
    return counts
