"""Rows of a packed batch as tensors, for attention over paged KV."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PagedRows:
    """Which tokens of a packed batch belong to which row, and where each row's context is stored.

    Query `j` of a row has position `length - queries + j` and attends to positions up to its own. Rows
    without queries or length are padding. The attributes that are not tensors decide how kernels are
    launched, so they must not change between the capture of a CUDA graph and its replay.

    Attributes:
        block_table: [R, max_blocks] int32 block ids, already shifted to the row's variant.
        starts: [R] int32, offset of the row's first query on the packed axis. If None, every row takes
            `max_queries` entries of the packed axis. Entries beyond its `queries` are padding, with result 0.
        queries: [R] int32, number of the row's new tokens.
        lengths: [R] int32, context length, the new tokens included.
        block_size: Token positions per block.
        max_queries: Upper bound of `queries`.
        max_length: Upper bound of `lengths`. It bounds the number of splits; their size follows the lengths.
    """

    block_table: Tensor
    starts: Tensor | None
    queries: Tensor
    lengths: Tensor
    block_size: int
    max_queries: int
    max_length: int

    def to(self, device: torch.device) -> PagedRows:
        """The same rows on another device."""
        return replace(
            self,
            block_table=self.block_table.to(device),
            starts=None if self.starts is None else self.starts.to(device),
            queries=self.queries.to(device),
            lengths=self.lengths.to(device),
        )
