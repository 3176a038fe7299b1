"""Packing the new tokens of several sequences into one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from langchain_eft.engine.attention.batch import ForwardBatch, QuerySpan, paged_rows
from langchain_eft.engine.attention.kv_pool import KVPool


@dataclass(frozen=True)
class Chunk:
    """The new tokens of one sequence for one variant of a model."""

    tokens: Sequence[int]
    position: int  # position of the first token
    variant: int  # variant of the model: 0 is the model itself, i its i-th adapter
    blocks: Sequence[int]  # the sequence's block table, shifted to the blocks of the variant


def pack(chunks: Sequence[Chunk], pool: KVPool, block_size: int, device: torch.device) -> ForwardBatch:
    """Concatenate chunks into one batch."""
    spans: list[QuerySpan] = []
    ids: list[int] = []
    positions: list[int] = []
    variants: list[int] = []
    for chunk in chunks:
        end = chunk.position + len(chunk.tokens)
        spans.append(QuerySpan(len(ids), len(chunk.tokens), end, chunk.blocks[: -(-end // block_size)]))
        ids.extend(chunk.tokens)
        positions.extend(range(chunk.position, end))
        variants.extend([chunk.variant] * len(chunk.tokens))
    packed = torch.tensor([ids, positions, variants]).to(device)
    return ForwardBatch(
        ids=packed[0:1],
        positions=packed[1:2],
        variants=packed[2],
        pool=pool,
        block_size=block_size,
        paged=paged_rows(spans, block_size, device),
    )
