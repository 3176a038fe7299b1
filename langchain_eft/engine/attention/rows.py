"""Rows of a packed batch as tensors: all that attention over paged KV has to know of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PagedRows:
    """Which tokens of a packed batch belong to which row, and where each row's context is stored.

    Query `j` of a row sits at position `length - queries + j` and sees positions up to its own. Rows without
    queries or length are padding. The host constants decide the launch, so they must not change between the
    capture of a CUDA graph and its replay.

    Attributes:
        block_table: [R, max_blocks] int32 block ids, already shifted to the row's variant.
        starts: [R] int32, offset of the row's first query on the packed axis. None: every row has
            `max_queries` places, and those beyond its `queries` are padding, for which zeros come out.
        queries: [R] int32, number of new tokens of the row.
        lengths: [R] int32, context length including the new tokens.
        block_size: Positions per block.
        max_queries: Upper bound of `queries`.
        max_length: Upper bound of `lengths`; it bounds the splits, whose size follows the lengths.
    """

    block_table: Tensor
    starts: Tensor | None
    queries: Tensor
    lengths: Tensor
    block_size: int
    max_queries: int
    max_length: int

    def to(self, device: torch.device) -> PagedRows:
        """The same on another device."""
        return replace(
            self,
            block_table=self.block_table.to(device),
            starts=None if self.starts is None else self.starts.to(device),
            queries=self.queries.to(device),
            lengths=self.lengths.to(device),
        )
