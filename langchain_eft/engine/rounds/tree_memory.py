"""The engine's KV memory for texts that are scored: with its prefix cache, as far as it has room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from langchain_eft.engine.analysis.term_outputs import OwnMemory, TreeBlocks, TreeText
from langchain_eft.engine.analysis.tree_passes import TreeMemory
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.scheduling.block_manager import BlockManager
from langchain_eft.engine.scheduling.prompt_state import PromptState


class EngineMemory:
    """Lends blocks between requests, and memory of its own while requests need all of them.

    Args:
        family: The loaded models.
        pools: The KV memory of each.
        blocks: The blocks of all requests.
    """

    def __init__(self, family: ModelFamily, pools: Sequence[KVPool], blocks: BlockManager) -> None:
        self._pools, self._blocks = pools, blocks
        self._own = OwnMemory(family)

    @contextmanager
    def borrow(self, texts: Sequence[TreeText]) -> Iterator[tuple[TreeMemory, list[TreeBlocks]]]:
        """Memory for trees, until the context is left.

        Tokens whose keys and values a request has computed are taken over. Those of each tree's first text
        are offered to later requests.
        """
        blocks, size = self._blocks, self._blocks.block_size
        prompts = [PromptState(text.tokens, text.terms) for text in texts]
        try:
            for prompt, text in zip(prompts, texts, strict=True):
                prompt.block_table = blocks.get_cached_blocks(prompt.block_keys(text.reusable, size))
                prompt.num_cached_blocks = len(prompt.block_table)
            if not all(
                blocks.allocate(prompt.block_table, text.size)
                for prompt, text in zip(prompts, texts, strict=True)
            ):
                with self._own.borrow(texts) as own:
                    yield own
                return
            parts = [TreeBlocks(prompt.block_table, prompt.num_cached_blocks * size) for prompt in prompts]
            yield TreeMemory(self._pools, size, blocks.num_blocks), parts
            for prompt in prompts:
                keys = prompt.block_keys(len(prompt.tokens), size)
                for block, key in zip(prompt.block_table, keys, strict=False):
                    blocks.cache_block(block, key)
        finally:
            for prompt in prompts:
                blocks.free(prompt.block_table)
