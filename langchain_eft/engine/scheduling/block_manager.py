"""Blocks of KV memory: free ones, used ones, and cached ones that later prompts may reuse."""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence


class BlockManager:
    """Hands out fixed-size blocks of token positions and keeps the prefix cache.

    A block without a user keeps its content until its memory is needed, least recently used first. A later
    request with the same beginning can take it over until then.

    Attributes:
        num_blocks: All blocks.
        block_size: Token positions per block.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks))
        self._reference_counts = [0] * num_blocks
        self._block_of_key: dict[bytes, int] = {}
        self._keys_of_block: dict[int, list[bytes]] = {}
        self._evictable: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free_blocks(self) -> int:
        """Blocks without a user, cached ones included."""
        return len(self._free) + len(self._evictable)

    @property
    def num_tokens(self) -> int:
        """Token positions of all blocks together."""
        return self.num_blocks * self.block_size

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks `num_tokens` positions take."""
        return -(-num_tokens // self.block_size)

    def allocate(self, table: list[int], num_tokens: int) -> bool:
        """Extend `table` until it covers `num_tokens` positions; False, and no change, if memory is short."""
        missing = self.blocks_for(num_tokens) - len(table)
        if missing > self.num_free_blocks:
            return False
        table.extend(self._take() for _ in range(missing))
        return True

    def contains(self, key: bytes) -> bool:
        """Whether some block holds this content."""
        return key in self._block_of_key

    def get_cached_blocks(self, keys: Iterable[bytes]) -> list[int]:
        """The cached blocks of the longest cached beginning of `keys`; the caller uses them from now on."""
        blocks = []
        for key in keys:
            block = self._block_of_key.get(key)
            if block is None:
                break
            self._reference_counts[block] += 1
            self._evictable.pop(block, None)
            blocks.append(block)
        return blocks

    def cache_block(self, block: int, key: bytes) -> None:
        """Offer a full block to later prompts, unless another block already offers the same content.

        A block that holds more than some prompts need has a key for what each of them needs.
        """
        if key not in self._block_of_key:
            self._block_of_key[key] = block
            self._keys_of_block.setdefault(block, []).append(key)

    def forget(self, table: Iterable[int]) -> None:
        """Offer blocks in use to later prompts no more."""
        for block in table:
            for key in self._keys_of_block.pop(block, ()):
                del self._block_of_key[key]

    def free(self, table: list[int]) -> None:
        """Give back every block of `table` and empty it; the end of a cached text is evicted first."""
        while table:
            block = table.pop()
            self._reference_counts[block] -= 1
            if self._reference_counts[block]:
                continue
            if block in self._keys_of_block:
                self._evictable[block] = None
            else:
                heapq.heappush(self._free, block)

    def _take(self) -> int:
        if self._free:
            block = heapq.heappop(self._free)
        else:
            block, _ = self._evictable.popitem(last=False)
            self.forget([block])
        self._reference_counts[block] = 1
        return block


def block_key(previous: bytes, tokens: Sequence[int]) -> bytes:
    """Name the content of a full block by its tokens and everything before them.

    Args:
        previous: Key of the block before, and what else the content depends on.
        tokens: The block's token ids.
    """
    return hashlib.blake2b(previous + array("q", tokens).tobytes(), digest_size=16).digest()
