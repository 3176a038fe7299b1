"""The packed tokens of one forward pass, and the rows that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.limits import LONGEST_DRAFT
from langchain_eft.engine.recurrence.rows import RecurrentRows

MAX_DECODING_QUERIES = LONGEST_DRAFT + 1
"""Most new tokens of a row that decodes: the longest draft and the token before it."""

_MIN_CHUNK = 128
"""Chunks of prompts are launched as if they had at least so many tokens: then all have the largest tile."""


@dataclass(frozen=True)
class QuerySpan:
    """The new tokens of one row, that is, of one sequence and variant, in a packed batch.

    Attributes:
        start: Offset of the first new token on the packed axis.
        queries: Number of new tokens.
        length: Length of the last new token's context, the token itself included.
        blocks: Block ids of that context, in order, shifted to the variant.
    """

    start: int
    queries: int
    length: int
    blocks: Sequence[int]


@dataclass
class ForwardBatch:
    """One forward pass of one model over packed rows.

    Attributes:
        ids: [1, N] int64 token ids of all rows, one row after the other.
        positions: [1, N] int64 position of each token in its own sequence.
        variants: [N] int64 variant that each token runs through: 0 is the model itself, i its i-th adapter.
        pool: The model's KV memory.
        block_size: Token positions per block.
        paged: The rows, as groups of tensors.
        recurrent: The rows as recurrent layers need them, or None if the model has none.
    """

    ids: Tensor
    positions: Tensor
    variants: Tensor
    pool: KVPool
    block_size: int
    paged: Sequence[PagedRows]
    recurrent: RecurrentRows | None = None
    _copies: dict[torch.device, ForwardBatch] = field(default_factory=dict)

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> ForwardBatch:
        """The same batch on another device; accelerate calls this where it spreads layers over devices."""
        target = torch.empty(0, device=device).device
        if target == self.ids.device:
            return self
        if target not in self._copies:
            ids, positions, variants = (
                x.to(target, non_blocking=non_blocking) for x in (self.ids, self.positions, self.variants)
            )
            self._copies[target] = replace(
                self,
                ids=ids,
                positions=positions,
                variants=variants,
                paged=[rows.to(target) for rows in self.paged],
                recurrent=self.recurrent and self.recurrent.to(target),
                _copies={},
            )
        return self._copies[target]


def paged_rows(spans: Sequence[QuerySpan], block_size: int, device: torch.device) -> list[PagedRows]:
    """Rows as tensors, in one or two groups.

    Rows that decode and the longer chunks of prompts are in different groups: the Triton kernel needs
    different launches for them.

    Args:
        spans: The rows in any order, at least one.
        block_size: Token positions per block.
        device: Device of the tensors.
    """
    decoding = [span for span in spans if span.queries <= MAX_DECODING_QUERIES]
    chunks = [span for span in spans if span.queries > MAX_DECODING_QUERIES]
    return [
        _paged_group(group, least, block_size, device)
        for group, least in ((decoding, MAX_DECODING_QUERIES), (chunks, _MIN_CHUNK))
        if group
    ]


def _paged_group(spans: Sequence[QuerySpan], least: int, block_size: int, device: torch.device) -> PagedRows:
    """Rows as tensors.

    Args:
        spans: The rows.
        least: Least `max_queries`: the kernel is compiled for each size of a tile, which follows from it.
        block_size: Token positions per block.
        device: Device of the tensors.
    """
    width = max(len(span.blocks) for span in spans)
    numbers = [
        [span.start, span.queries, span.length, *span.blocks, *[0] * (width - len(span.blocks))]
        for span in spans
    ]
    packed = torch.tensor(numbers, dtype=torch.int32).t().contiguous().to(device)
    starts, queries, lengths = packed[:3]
    return PagedRows(
        block_table=packed[3:].t().contiguous(),
        starts=starts,
        queries=queries,
        lengths=lengths,
        block_size=block_size,
        max_queries=max(least, *(span.queries for span in spans)),
        max_length=max(span.length for span in spans),
    )


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a device current. Triton launches kernels on the current device, wherever their tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
