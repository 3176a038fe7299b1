"""Packing the new tokens of several sequences into one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from langchain_eft.engine.attention.batch import (
    MAX_DECODING_QUERIES,
    ForwardBatch,
    QuerySpan,
    paged_rows,
)
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.recurrence.rows import RecurrentRows
from langchain_eft.engine.recurrence.state_pool import StatePool


@dataclass(frozen=True)
class Chunk:
    """The new tokens of one sequence for one variant of a model."""

    tokens: Sequence[int]
    position: int  # position of the first token
    variant: int  # variant of the model: 0 is the model itself, i its i-th adapter
    blocks: Sequence[int]  # the sequence's block table, shifted to the blocks of the variant
    slot: int = 0  # of the sequence's recurrent state, shifted to those of the variant
    begin: int = 0  # position from which the variant runs; the model itself runs the tokens before it


def is_final(count: int) -> bool:
    """Whether recurrent states take in so many new tokens for good: a few may have to run again."""
    return count > MAX_DECODING_QUERIES


def pack(
    chunks: Sequence[Chunk],
    pool: KVPool,
    block_size: int,
    device: torch.device,
    states: StatePool | None = None,
) -> ForwardBatch:
    """Concatenate chunks into one batch.

    Args:
        chunks: At least one.
        pool: KV memory of the model.
        block_size: Positions per block.
        device: Where the model's inputs are.
        states: Its recurrent states, if it has recurrent layers.
    """
    spans: list[QuerySpan] = []
    ids: list[int] = []
    positions: list[int] = []
    variants: list[int] = []
    for chunk in chunks:
        end = chunk.position + len(chunk.tokens)
        spans.append(QuerySpan(len(ids), len(chunk.tokens), end, chunk.blocks[: -(-end // block_size)]))
        ids.extend(chunk.tokens)
        positions.extend(range(chunk.position, end))
        before = min(max(chunk.begin - chunk.position, 0), len(chunk.tokens))
        variants.extend([0] * before + [chunk.variant] * (len(chunk.tokens) - before))
    packed = torch.tensor([ids, positions, variants]).to(device)
    return ForwardBatch(
        ids=packed[0:1],
        positions=packed[1:2],
        variants=packed[2],
        pool=pool,
        block_size=block_size,
        paged=paged_rows(spans, block_size, device),
        recurrent=_recurrent_rows(chunks, spans, states, len(ids), device) if states else None,
    )


def _recurrent_rows(
    chunks: Sequence[Chunk],
    spans: Sequence[QuerySpan],
    states: StatePool,
    num_tokens: int,
    device: torch.device,
) -> RecurrentRows:
    numbers = [
        (
            chunk.slot,
            span.start,
            span.queries,
            chunk.position,
            span.length if is_final(span.queries) else chunk.position,
        )
        for chunk, span in zip(chunks, spans, strict=True)
    ]
    slots, starts, queries, positions, final = torch.tensor(numbers).t().contiguous().to(device)
    most = max(span.queries for span in spans)
    return RecurrentRows.of(states, slots, starts, queries, positions, final, num_tokens, most)
