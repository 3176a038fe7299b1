"""Where the keys and values of given texts are meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from langchain_eft.engine.analysis.text_tree import TextTree
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.scheduling.block_manager import BlockManager


class KVMemory(NamedTuple):
    """The KV memory of an engine.

    Attributes:
        pools: Of each model.
        blocks: The blocks that every variant of a model has in its pool.
    """

    pools: Sequence[KVPool]
    blocks: BlockManager


@contextmanager
def allocated(trees: Collection[TextTree], memory: KVMemory) -> Iterator[KVMemory]:
    """Memory that holds texts until the context is left: the engine's, or other if requests need all of that.

    Tokens whose keys and values a request has computed are taken over. Those of each tree's first prompt are
    offered to later requests.
    """
    if not _allocate(trees, memory.blocks):
        num_blocks = sum(memory.blocks.blocks_for(len(each.tokens)) for each in trees)
        blocks = BlockManager(num_blocks, memory.blocks.block_size)
        variants = 1 + max(term.variant for each in trees for term in each.readers)
        memory = KVMemory([KVPool(variants * blocks.num_tokens) for _ in memory.pools], blocks)
        _allocate(trees, blocks)
    prompts = [each.prompt for each in trees]
    try:
        yield memory
        for prompt in prompts:
            prompt.num_computed_tokens = len(prompt.tokens)
            prompt.cache_full_blocks(memory.blocks)
    finally:
        for prompt in prompts:
            memory.blocks.free(prompt.block_table)


def _allocate(trees: Collection[TextTree], blocks: BlockManager) -> bool:
    """Allocate a block table for every tree; False, and no change, if memory is short."""
    for each in trees:
        each.prompt.take_cached_blocks(min(each.wanted), blocks)
    if all(blocks.allocate(each.prompt.block_table, len(each.tokens)) for each in trees):
        return True
    for each in trees:
        blocks.free(each.prompt.block_table)
    return False
