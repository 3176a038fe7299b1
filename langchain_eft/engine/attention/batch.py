"""The packed tokens of one forward pass, and which rows they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.util import find_spec

import torch
from torch import Tensor

from langchain_eft.engine.attention.kv_pool import KVPool, token_slots
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.attention.sdpa import causal_mask
from langchain_eft.engine.limits import LONGEST_DRAFT

FEW_QUERIES = LONGEST_DRAFT + 1
"""Most new tokens of a decoding row: the longest draft and the token before it."""


@dataclass(frozen=True)
class QuerySpan:
    """A run of new tokens of one sequence and variant inside a packed batch.

    Attributes:
        start: Offset of the first new token on the packed axis.
        queries: Number of new tokens.
        length: Number of tokens that the last new one may look at, itself included.
        blocks: Where those are stored, in order: block ids, shifted to the variant.
    """

    start: int
    queries: int
    length: int
    blocks: Sequence[int]


@dataclass
class ForwardBatch:
    """One forward pass of one model over packed rows.

    Attributes:
        ids: [1, N] int64 token ids of all rows, one after the other.
        positions: [1, N] int64 position of each token in its own sequence.
        variants: [N] int64, which variant (0 is the plain model, i the i-th adapter) each token runs through.
        pool: The model's KV memory.
        block_size: Positions per block.
        rows: The rows, in packed order; not needed where `paged` has them.
        paged: The rows as tensors, or none, where `rows` has them.
        gathers: Whether the contexts of `paged` are gathered, rather than read by the Triton kernel.
    """

    ids: Tensor
    positions: Tensor
    variants: Tensor
    pool: KVPool
    block_size: int
    rows: Sequence[QuerySpan] = ()
    paged: Sequence[PagedRows] = ()
    gathers: bool = False
    _masks: dict[tuple[int, int, int | None], Tensor | None] = field(default_factory=dict)
    _copies: dict[torch.device, ForwardBatch] = field(default_factory=dict)

    def mask(self, queries: int, length: int, window: int | None) -> Tensor | None:
        """[queries, length] bool, True where a query may look; None where it may look everywhere."""
        key = (queries, length, window)
        if key not in self._masks:
            self._masks[key] = causal_mask(queries, length, window, self.ids.device)
        return self._masks[key]

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> ForwardBatch:
        """The same on another device; accelerate asks for it where it spreads layers over several."""
        place = torch.empty(0, device=device).device
        if place == self.ids.device:
            return self
        if place not in self._copies:
            ids, positions, variants = (
                x.to(place, non_blocking=non_blocking) for x in (self.ids, self.positions, self.variants)
            )
            self._copies[place] = replace(
                self,
                ids=ids,
                positions=positions,
                variants=variants,
                paged=[rows.to(place) for rows in self.paged],
                _masks={},
                _copies={},
            )
        return self._copies[place]

    @cached_property
    def contexts(self) -> list[Tensor]:
        """[length] slots of each row's context."""
        return [
            token_slots(row.blocks, 0, row.length, self.block_size).to(self.ids.device) for row in self.rows
        ]

    @cached_property
    def slots(self) -> Tensor:
        """[N] int64, where each token's keys and values are stored."""
        pairs = zip(self.rows, self.contexts, strict=True)
        return torch.cat([context[row.length - row.queries :] for row, context in pairs])


def page(rows: Sequence[QuerySpan], block_size: int, device: torch.device) -> list[PagedRows]:
    """Rows for the Triton kernel; those of few queries apart from long chunks, which need another launch.

    Args:
        rows: In any order, at least one.
        block_size: Positions per block.
        device: Where they go.
    """
    few = [row for row in rows if row.queries <= FEW_QUERIES]
    many = [row for row in rows if row.queries > FEW_QUERIES]
    return [_page(group, block_size, device) for group in (few, many) if group]


def _page(rows: Sequence[QuerySpan], block_size: int, device: torch.device) -> PagedRows:
    width = max(len(row.blocks) for row in rows)
    numbers = [
        [row.start, row.queries, row.length, *row.blocks, *[0] * (width - len(row.blocks))] for row in rows
    ]
    packed = torch.tensor(numbers, dtype=torch.int32).t().contiguous().to(device)
    starts, queries, lengths = packed[:3]
    return PagedRows(
        block_table=packed[3:].t().contiguous(),
        starts=starts,
        queries=queries,
        lengths=lengths,
        block_size=block_size,
        max_queries=max(row.queries for row in rows),
        max_length=max(row.length for row in rows),
    )


@cache
def has_kernel(device: torch.device) -> bool:
    """Whether the Triton kernel runs there: on GPUs since Ampere, where Triton is installed."""
    return (
        device.type == "cuda"
        and find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )
