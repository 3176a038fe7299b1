"""The rows of a packed batch, as recurrent layers need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from langchain_eft.engine.recurrence.state_pool import MOST_REPLAYED, StatePool


class Tokens(NamedTuple):
    """The tokens of a packed batch.

    Attributes:
        row: [N] int64, the row of each.
        offset: [N] int64, its number among the row's new tokens.
        position: [N] int64, its position in the text.
        live: [N] bool, whether it is a token and no padding.
    """

    row: Tensor
    offset: Tensor
    position: Tensor
    live: Tensor


@dataclass(frozen=True)
class RecurrentRows:
    """Which tokens of a packed batch belong to which row, and which slot has the state of each row.

    Attributes:
        pool: The states of the model.
        slots: [R] int64, of each row; the slot for padding if it has no token here.
        starts: [R] int64, offset of its first token on the packed axis, in order.
        positions: [R] int64, position of that token in its text.
        ends: [R] int64, position after the last one.
        final: [R] int64, tokens of the text that no later pass runs again: its state is kept behind them. At
            most `MOST_REPLAYED` tokens may be left.
        num_tokens: N, length of the packed axis.
        most_steps: Most tokens that a scan may have to run in a row.
    """

    pool: StatePool
    slots: Tensor
    starts: Tensor
    positions: Tensor
    ends: Tensor
    final: Tensor
    num_tokens: int
    most_steps: int

    @classmethod
    def of(
        cls,
        pool: StatePool,
        slots: Tensor,
        starts: Tensor,
        queries: Tensor,
        positions: Tensor,
        final: Tensor,
        num_tokens: int,
        most_queries: int,
    ) -> RecurrentRows:
        """Rows by [R] int64 numbers of new tokens, some of which may be 0.

        Args:
            pool: See the attributes.
            slots: See the attributes.
            starts: See the attributes.
            queries: Number of new tokens.
            positions: See the attributes.
            final: See the attributes.
            num_tokens: See the attributes.
            most_queries: Most new tokens of a row.
        """
        return cls(
            pool=pool,
            slots=torch.where(queries > 0, slots, pool.padding),
            starts=starts,
            positions=positions,
            ends=positions + queries,
            final=torch.minimum(final, positions + queries),
            num_tokens=num_tokens,
            most_steps=MOST_REPLAYED + most_queries,
        )

    @cached_property
    def tokens(self) -> Tokens:
        """The tokens."""
        at = torch.arange(self.num_tokens, device=self.starts.device)
        row = torch.searchsorted(self.starts, at, right=True) - 1
        offset = at - self.starts[row]
        position = self.positions[row] + offset
        return Tokens(row, offset, position, position < self.ends[row])

    def kept_at(self, size: int) -> Tensor:
        """[N] int64, where a memory [slots, size] keeps the last `size` tokens of each row."""
        # All other tokens go to the slot for padding.
        row, _, position, live = self.tokens
        kept = live & (position >= self.ends[row] - size)
        return torch.where(kept, self.slots[row] * size + position % size, self.pool.padding * size)

    def to(self, device: torch.device) -> RecurrentRows:
        """The same rows on another device."""
        return self._with(*(numbers.to(device) for numbers in self.numbers))

    @property
    def numbers(self) -> tuple[Tensor, ...]:
        """The [R] numbers of the rows: slots, starts, positions, ends, final."""
        return self.slots, self.starts, self.positions, self.ends, self.final

    def _with(self, slots: Tensor, starts: Tensor, positions: Tensor, ends: Tensor, final: Tensor) -> Self:
        return replace(self, slots=slots, starts=starts, positions=positions, ends=ends, final=final)


def joined_rows(groups: Sequence[RecurrentRows], num_tokens: int) -> RecurrentRows:
    """Groups of rows of one batch of N tokens as one, in order."""
    joined = groups[0]._with(*map(torch.cat, zip(*(group.numbers for group in groups), strict=True)))
    return replace(joined, num_tokens=num_tokens, most_steps=max(group.most_steps for group in groups))
