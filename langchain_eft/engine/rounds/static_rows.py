"""The rows of static rounds that follow each other, and how the host tells the device about them.

Most rounds have the rows of the round before. So what depends on the rows alone is worked out once. A host
block that was filled for the same rows gets only what has changed: where the rows stand, how they draft, and
their new blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from langchain_eft.engine.rounds.shape import (
    MIN_CONTEXT,
    RoundShape,
    longest_context,
    padded,
    padded_shape,
    shape_without_drafts,
)
from langchain_eft.engine.rounds.staging import PackedTensors
from langchain_eft.engine.rounds.transfer import (
    write_blocks,
    write_coefficients,
    write_constants,
    write_gates,
    write_history,
    write_progress,
    write_terms,
)
from langchain_eft.engine.scheduling.draft import Draft
from langchain_eft.engine.scheduling.request_state import RequestState


class StaticRows:
    """The rows of static rounds, in order.

    Attributes:
        states: The rows.

    Args:
        states: The rows.
        max_batch_size: Bound on the rows with padding.
        num_blocks: Blocks of one variant.
    """

    def __init__(self, states: Sequence[RequestState], max_batch_size: int, num_blocks: int) -> None:
        self.states = list(states)
        self._max_batch_size, self._num_blocks = max_batch_size, num_blocks
        self._tables = [prompt.block_table for state in states for prompt in state.prompts.values()]
        self._without_drafts, self._slots_of_rows = shape_without_drafts(states)
        lengths = (state.request.speculation for state in states)
        self._fixed_draft_lengths = [length for length in lengths if isinstance(length, int)]
        self._shapes: dict[tuple[int, bool, int], RoundShape] = {}
        # Rows whose coefficients still change with the position.
        self._changing = [row for row, s in enumerate(states) if s.num_output_tokens < s.formula.knots[-1]]
        # By host block, for each row: how many tokens and how many blocks were written.
        self._num_written: WeakKeyDictionary[PackedTensors, list[tuple[int, int]]] = WeakKeyDictionary()

    def are(self, states: Sequence[RequestState]) -> bool:
        """Whether these are the same rows, in order, with the blocks that they had and perhaps more.

        A row that is preempted loses its blocks. It gets another table with new ones.
        """
        tables = [prompt.block_table for state in states for prompt in state.prompts.values()]
        return self.states == list(states) and all(map(_is, self._tables, tables))

    def shape(self, drafts: Mapping[RequestState, Draft], unread: Mapping[RequestState, Draft]) -> RoundShape:
        """The shape of a round of these rows, with padding.

        Args:
            drafts: The rows, and how they draft.
            unread: Rows and drafts of the round before, if it has not been read.
        """
        longest = max(
            longest_context(state, draft) + (unread[state].count + 1 if state in unread else 0)
            for state, draft in drafts.items()
        )
        num_draft_tokens = max(draft.count for draft in drafts.values())
        drafting = any(draft.runs_model for draft in drafts.values())
        key = num_draft_tokens, drafting, padded(max(MIN_CONTEXT, longest))
        if key not in self._shapes:
            exact = replace(
                self._without_drafts,
                num_draft_tokens=num_draft_tokens,
                drafting=drafting,
                max_context=key[2],
            )
            self._shapes[key] = padded_shape(exact, self._max_batch_size, self._fixed_draft_lengths)
        return self._shapes[key]

    def write(
        self,
        host: PackedTensors,
        shape: RoundShape,
        drafts: Mapping[RequestState, Draft],
        unread: Mapping[RequestState, Draft],
    ) -> None:
        """Fill in all inputs of a round, except what grammars allow.

        Args:
            host: The host's block, opened for these rows.
            shape: The round's.
            drafts: The rows, and how they draft.
            unread: Rows of the round before that this one continues, if it has not been read.
        """
        if host.writer is not self:
            write_constants(host, shape, self.states)
            write_terms(host, self.states, self._slots_of_rows)
            for row, state in enumerate(self.states):
                write_coefficients(host, shape, row, state, self._slots_of_rows[row])
                write_gates(host, row, state, self._slots_of_rows[row])
            self._num_written[host] = [(0, 0)] * len(self.states)
            host.writer = self
        else:
            for row in self._changing:
                write_coefficients(host, shape, row, self.states[row], self._slots_of_rows[row])
        written = self._num_written[host]
        for row, state in enumerate(self.states):
            num_tokens, num_blocks = (
                len(state.tokens),
                sum(len(p.block_table) for p in state.prompts.values()),
            )
            if shape.penalties:
                write_history(host, row, state, written[row][0])
            if num_blocks != written[row][1]:
                write_blocks(host, row, state, self._slots_of_rows[row], self._num_blocks)
            written[row] = num_tokens, num_blocks
        write_progress(host, drafts, unread)


def _is(one: object, other: object) -> bool:
    return one is other
