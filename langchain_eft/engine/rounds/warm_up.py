"""What a GPU runs once when an engine opens, so that no kernel is compiled while it serves.

Triton compiles a kernel for each combination of its constants. There are few: what depends on a batch is an
ordinary argument. So a few passes meet all of them. Their results are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from langchain_eft.engine.attention.batch import MAX_DECODING_QUERIES
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.rounds.shape import PADDED_DRAFT_LENGTHS, RoundShape, common_shapes
from langchain_eft.engine.rounds.shared import Shared

_LONG = 1024
"""Length of a context that attention divides into parts."""


def run_prompts(shared: Shared) -> None:
    """Run a row that decodes and the chunk of a prompt through every model, with short and long contexts.

    Their keys and values go to blocks that no request has yet.
    """
    queries = MAX_DECODING_QUERIES + 1
    room = min(shared.family.window, shared.num_blocks * shared.block_size)
    for model, pool, states in zip(shared.family.models, shared.pools, shared.states, strict=True):
        for position in sorted({0, max(0, min(_LONG, room - queries))}):
            counts = [count for count in (1, queries) if position + count <= room]
            blocks = list(range(-(-(position + counts[-1]) // shared.block_size)))
            chunks = [Chunk([0] * count, position, 0, blocks) for count in counts]
            batch = pack(chunks, pool, shared.block_size, model.device, states)
            model(batch, range(model.variants), torch.zeros(1, dtype=torch.int64, device=model.device))


def shapes(family: ModelFamily, max_batch_size: int) -> Iterator[RoundShape]:
    """Rounds that need every combination of constants, with many rows and with one, the largest first.

    Args:
        family: The models.
        max_batch_size: Most rows of a round.
    """
    for rows in sorted({1, max_batch_size}, reverse=True):
        common = common_shapes(family, rows)
        for shape in common:
            if shape.num_draft_tokens != common[0].num_draft_tokens:
                continue  # the same with fewer draft tokens
            for length in reversed(PADDED_DRAFT_LENGTHS):
                yield replace(shape, num_draft_tokens=length, drafting=length > 0)
            yield replace(shape, filters=replace(shape.filters, min_p=shape.filters.sampled))
