"""Blocks of KV memory: free ones, held ones, and those that later prompts may reuse."""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence


class BlockAllocator:
    """Hands out fixed-size blocks of token positions and remembers what the full ones hold.

    A block that nobody holds any more keeps its content until its memory is wanted (least recently used
    first), so that a later request with the same beginning can take it over: the prefix cache.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks))
        self._holders = [0] * num_blocks
        self._cached: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds, cached or not."""
        return len(self._free) + len(self._idle)

    def blocks_for(self, tokens: int) -> int:
        """How many blocks `tokens` positions take."""
        return -(-tokens // self.block_size)

    def grow(self, table: list[int], tokens: int) -> bool:
        """Extend `table` until it covers `tokens` positions; False, and no change, if memory is short."""
        missing = self.blocks_for(tokens) - len(table)
        if missing > self.free_blocks:
            return False
        table.extend(self._take() for _ in range(missing))
        return True

    def knows(self, key: bytes) -> bool:
        """Whether some block holds this content."""
        return key in self._cached

    def match(self, keys: Iterable[bytes]) -> list[int]:
        """The cached blocks of the longest known beginning of `keys`, held for the caller."""
        blocks = []
        for key in keys:
            block = self._cached.get(key)
            if block is None:
                break
            self._holders[block] += 1
            self._idle.pop(block, None)
            blocks.append(block)
        return blocks

    def register(self, block: int, key: bytes) -> None:
        """Remember what a full block holds, unless another block is known to hold the same."""
        if key not in self._cached and block not in self._keys:
            self._cached[key] = block
            self._keys[block] = key

    def release(self, table: list[int]) -> None:
        """Give back every block of `table` and empty it; of what stays cached, its end is forgotten first."""
        while table:
            block = table.pop()
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self._keys:
                self._idle[block] = None
            else:
                heapq.heappush(self._free, block)

    def _take(self) -> int:
        if self._free:
            block = heapq.heappop(self._free)
        else:
            block, _ = self._idle.popitem(last=False)
            del self._cached[self._keys.pop(block)]
        self._holders[block] = 1
        return block


def block_key(previous: bytes, tokens: Sequence[int]) -> bytes:
    """Names the content of a full block by its tokens and everything before them.

    Args:
        previous: Key of the block before, or, for the first block, what else the content depends on.
        tokens: The block's token ids.
    """
    return hashlib.blake2b(previous + array("q", tokens).tobytes(), digest_size=16).digest()
