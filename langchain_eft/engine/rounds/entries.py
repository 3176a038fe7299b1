"""Which logits of a round belong to which row, term and step.

A round computes the logits of its draft passes, one after the other, and then those of its verify pass. Where
no padding is dropped, all have fixed places. Else each pass says where those of its slots and rows begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.rounds.shape import RoundShape


class PartPlaces(NamedTuple):
    """Where the logits of some slots are, in a pass that verifies.

    Attributes:
        first: [s, B] int64, the first logits of each slot and row.
        offset: [B] int64, draft tokens before those.
        width: Most logits of a row.
    """

    first: Tensor
    offset: Tensor
    width: int


class Entries:
    """Which of the logits belong to which row, term and step.

    S slots of which D draft, B rows, K draft tokens, T terms of a row.

    Attributes:
        first: [D, B] int64, the logits of each slot and row in a draft pass that drops no padding.
        num_drafted: Logits of all draft passes, if they drop none.
        count: Logits of the round, if it drops none.

    Args:
        shape: The round's.
        device: Where logits are combined.
        padded: Whether all have fixed places.
    """

    def __init__(self, shape: RoundShape, device: torch.device, *, padded: bool) -> None:
        drafts = torch.tensor([slot.role == "drafts" for slot in shape.slots])
        self._draft_slots = drafts.nonzero()[:, 0].to(device)
        self._draft_number = (drafts.long().cumsum(0) - 1).clamp(min=0).to(device)
        self._steps = torch.arange(shape.positions, device=device)
        size = len(self._draft_slots) * shape.rows
        self.first = torch.arange(size, device=device).view(-1, shape.rows)
        self.num_drafted = size * shape.num_draft_tokens if shape.drafting else 0
        self.count, self._fixed = 0, None
        if padded:
            drafted, parts = [], []
            if shape.drafting:
                drafted = [self.first + step * size for step in range(shape.num_draft_tokens)]
            end, nothing = self.num_drafted, torch.zeros(shape.rows, dtype=torch.int64, device=device)
            for drafting in drafts.tolist():
                width = 1 if drafting and shape.drafting else shape.positions
                rows = torch.arange(shape.rows, device=device)[None]
                parts.append(PartPlaces(end + rows * width, nothing, width))
                end += shape.rows * width
            self.count, self._fixed = end, self._places(parts, drafted)

    def of_draft_pass(self, first: Tensor, slot: Tensor, num_draft_terms: Tensor) -> Tensor:
        """[B, D'] int64, the logits of each of a row's terms that draft, among those of one pass.

        Args:
            first: [D, B] int64, the logits of each slot that drafts.
            slot: [B, D'] int64, the slot of each of a row's first terms.
            num_draft_terms: [B] int64. In place of terms that a row lacks stands its first one.
        """
        entry = first.t().gather(1, self._draft_number[slot])
        lacks = torch.arange(slot.shape[1], device=slot.device) >= num_draft_terms[:, None]
        return torch.where(lacks, entry[:, :1], entry)

    def of_round(
        self, parts: Sequence[PartPlaces], drafted: Sequence[Tensor], ran: Tensor, slot: Tensor
    ) -> Tensor:
        """[B, K + 1, T] int64, the logits of each of a row's terms after each draft token.

        Args:
            parts: The verify pass, where it drops padding.
            drafted: [D, B] int64 of each draft pass, where they drop padding.
            ran: [B] int64, draft tokens before which the draft passes have run.
            slot: [B, T] int64, the slot of each of a row's terms.
        """
        at_drafts, after = self._fixed or self._places(parts, drafted)
        index = after
        if at_drafts is not after:
            index = torch.where(self._steps < ran[:, None], at_drafts, after)
        return index.permute(1, 2, 0).gather(2, slot[:, None].expand(-1, len(self._steps), -1))

    def _places(self, parts: Sequence[PartPlaces], drafted: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """[S, B, K + 1] int64 logits of each slot, row and step: at draft tokens that were run, and after."""
        after = torch.cat(
            [
                part.first[..., None] + (self._steps - part.offset[:, None]).clamp(0, part.width - 1)
                for part in parts
            ]
        )
        if not drafted:
            return after, after
        at_drafts = after.clone()
        at_drafts[..., : len(drafted)].index_copy_(0, self._draft_slots, torch.stack(list(drafted), -1))
        return at_drafts, after
