"""The packed tokens of one forward pass, and the rows that they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.attention.flash import KEY_STEP, flash_bias
from langchain_eft.engine.attention.kv_pool import KVPool, token_slots
from langchain_eft.engine.attention.rows import PagedRows
from langchain_eft.engine.attention.sdpa import KEY_BLOCK, QUERY_TILE, causal_bias, padded_length
from langchain_eft.engine.limits import LONGEST_DRAFT

MAX_DECODING_QUERIES = LONGEST_DRAFT + 1
"""Most new tokens of a row that decodes: the longest draft and the token before it."""

_MIN_CHUNK = 128
"""Chunks of prompts are launched as if they had at least so many tokens: then all have the largest tile."""


_KEYS_AT_ONCE = 4096
"""Most keys that rows attend to together: their copies should fit the processor's cache."""


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
        spans: The rows; may be empty if `paged` has them.
        paged: The rows as groups of tensors; empty if only `spans` has them.
        gathers: Whether `gathered_attention` runs the rows of `paged`, rather than the Triton kernel.
    """

    ids: Tensor
    positions: Tensor
    variants: Tensor
    pool: KVPool
    block_size: int
    spans: Sequence[QuerySpan] = ()
    paged: Sequence[PagedRows] = ()
    gathers: bool = False
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
                _copies={},
            )
        return self._copies[target]

    @cached_property
    def groups(self) -> list[RowGroup]:
        """The rows of `spans` that attend together."""
        groups = _together(self.spans, self.block_size)
        return [RowGroup(spans, self.block_size, self.pool, self.ids.device) for spans in groups]

    @cached_property
    def new_slots(self) -> Tensor:
        """[N] int64, the slot of each new token's keys and values."""
        slots = torch.empty_like(self.variants)
        for group in self.groups:
            slots[group.tokens] = group.new_slots
        return slots


def _together(spans: Sequence[QuerySpan], block_size: int) -> Iterator[Sequence[QuerySpan]]:
    """Divide rows into those that attend together.

    They have equal numbers of queries and, with padding, of keys. Rows that begin with the same blocks are
    apart from others, because they read these once. A row with many queries is alone.
    """
    first = -(-KEY_BLOCK // block_size)
    beginnings = [tuple(s.blocks[:first]) if s.length - s.queries >= KEY_BLOCK else () for s in spans]
    numbers = Counter(beginnings)
    groups: dict[tuple[object, ...], list[QuerySpan]] = {}
    for span, beginning in zip(spans, beginnings, strict=True):
        alone = span.start if span.queries > QUERY_TILE else None
        key = span.queries, padded_length(span.length), alone, numbers[beginning] > 1 and beginning
        groups.setdefault(key, []).append(span)
    for group in groups.values():
        own_keys = padded_length(group[0].length) - _num_shared(group, block_size) * KEY_BLOCK
        count = max(1, _KEYS_AT_ONCE // own_keys)
        yield from (group[start : start + count] for start in range(0, len(group), count))


def _num_shared(spans: Sequence[QuerySpan], block_size: int) -> int:
    """Segments of `KEY_BLOCK` keys with which all rows begin, and which come before all queries."""
    if len(spans) == 1:
        return 0
    tables = zip(*(span.blocks for span in spans), strict=False)
    alike = takewhile(lambda blocks: len(set(blocks)) == 1, tables)
    before = min(span.length - span.queries for span in spans)
    return min(sum(block_size for _ in alike), before) // KEY_BLOCK


class _Gather(NamedTuple):
    """How keys and values are copied at every layer.

    Attributes:
        entries: [n] int64, which ones, of a layer's [slots * kv_heads].
        copy: [n, size] where they go.
        result: The copy in the form that attention takes.
    """

    entries: Tensor
    copy: Tensor
    result: Tensor


class RowGroup:
    """Rows with equal numbers of queries and, with padding, of keys; one row if it has many queries.

    Args:
        spans: R rows of Q queries.
        block_size: Token positions per block.
        pool: Their KV memory.
        device: Device of the tensors.

    Attributes:
        spans: The rows.
        queries: Q.
        tokens: Where their queries are on the packed axis: a slice, or [R * Q] int64.
        new_slots: [R * Q] int64, where the keys and values of these go.
        num_shared: Segments of `KEY_BLOCK` keys with which all rows begin, and which come before all queries.
        tiles: First query, and one past the last, of those that attend at once.
    """

    def __init__(
        self, spans: Sequence[QuerySpan], block_size: int, pool: KVPool, device: torch.device
    ) -> None:
        self.spans, self.queries, self._pool, self._device = spans, spans[0].queries, pool, device
        self.num_shared = _num_shared(spans, block_size)
        firsts = range(0, self.queries, QUERY_TILE)
        self.tiles = [(first, min(first + QUERY_TILE, self.queries)) for first in firsts]
        starts = [span.start for span in spans]
        packed = list(range(starts[0], starts[0] + len(spans) * self.queries, self.queries))
        self.tokens: slice | Tensor = slice(starts[0], packed[-1] + self.queries)
        if starts != packed:
            tokens = [torch.arange(start, start + self.queries) for start in starts]
            self.tokens = torch.cat(tokens).to(device)
        lengths = [span.length for span in spans]
        self._longest = max(lengths)
        slots = token_slots([span.blocks for span in spans], lengths, padded_length(lengths[0]), block_size)
        new = torch.tensor(lengths)[:, None] - torch.arange(self.queries, 0, -1)
        self.new_slots = slots.gather(1, new).flatten().to(device)
        self._slots = slots.to(device)
        self._gathers: dict[tuple[str, int, int, range, int], _Gather] = {}
        self._biases: dict[tuple[int, int, int | None], Tensor] = {}
        self._flash_biases: dict[tuple[int, int, int | None, int], Tensor] = {}

    def context(self, memory: Tensor) -> Tensor:
        """The rows' keys and values, [R, kv_heads, T, size], from [slots, kv_heads, size].

        The next layer overwrites them.
        """
        rows, keys = range(len(self.spans)), range(self._slots.shape[1])
        return self._gathered(memory, rows, keys, len(keys), "own")

    def segments(self, memory: Tensor, num_shared: int) -> tuple[Tensor | None, Tensor]:
        """The rows' keys and values in segments. The next layer overwrites them.

        Args:
            memory: [slots, kv_heads, size] a layer's memory.
            num_shared: Segments that are read once for all rows, at most `self.num_shared`.

        Returns:
            [num_shared, kv_heads, KEY_BLOCK, size] of the shared segments, None if there are none, and
            [R * S, kv_heads, keys, size] of each row's other segments, S of them.
        """
        rows, own = range(len(self.spans)), self._own_keys(num_shared)
        shared = None
        if num_shared:
            shared = self._gathered(memory, rows[:1], range(own.start), KEY_BLOCK, "shared")
        return shared, self._gathered(memory, rows, own, min(KEY_BLOCK, len(own)), "own")

    def _own_keys(self, num_shared: int) -> range:
        """The keys that are not shared. A single segment of them ends soon after the longest row."""
        first, stop = num_shared * KEY_BLOCK, self._slots.shape[1]
        if stop - first == KEY_BLOCK:
            stop = -(-self._longest // KEY_STEP) * KEY_STEP
        return range(first, stop)

    def _gathered(self, memory: Tensor, rows: range, keys: range, segment: int, name: str) -> Tensor:
        """[rows * segments, kv_heads, segment, size] some keys and values of the first rows."""
        heads, size = memory.shape[1:]
        key = name, heads, size, keys, segment
        if key not in self._gathers:
            slots = self._slots[: len(rows), keys.start : keys.stop].reshape(-1, 1, segment)
            entries = slots * heads + torch.arange(heads, device=self._device)[:, None]
            copy = self._pool.scratch(name, (entries.numel(), size), memory)
            result = copy.view(*entries.shape, size)
            self._gathers[key] = _Gather(entries.flatten(), copy, result)
        gather = self._gathers[key]
        torch.index_select(memory.flatten(0, 1), 0, gather.entries, out=gather.copy)
        return gather.result

    def bias(self, first: int, stop: int, window: int | None) -> Tensor:
        """[R, n, T] `sdpa.causal_bias` of the queries from `first` to `stop`; all layers share it."""
        key = first, stop, window
        if key not in self._biases:
            behind = self.queries - stop
            lengths = [span.length - behind for span in self.spans]
            self._biases[key] = causal_bias(stop - first, lengths, window, self._device)
        return self._biases[key]

    def flash_bias(self, first: int, stop: int, window: int | None, groups: int, num_shared: int) -> Tensor:
        """`flash.flash_bias` of the queries from `first` to `stop` and of the segments that are not shared.

        All layers share it.
        """
        key = first, stop, window, groups
        if key not in self._flash_biases:
            keys = self._own_keys(num_shared)
            own = self.bias(first, stop, window)[..., keys.start : keys.stop]
            self._flash_biases[key] = flash_bias(own, groups)
        return self._flash_biases[key]


def paged_rows(spans: Sequence[QuerySpan], block_size: int, device: torch.device) -> list[PagedRows]:
    """Rows as tensors for the Triton kernel, in one or two groups.

    Rows that decode and the longer chunks of prompts are in different groups: they need different launches.

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


@cache
def has_kernel(device: torch.device) -> bool:
    """Whether the Triton kernels run on a device: on GPUs since Ampere, if Triton is installed."""
    return (
        device.type == "cuda"
        and find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )
