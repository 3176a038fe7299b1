"""Paged KV memory: one block allocator for all lockstep models, one pool of pages per model.

The models of a recipe see the same tokens at the same positions, so a request has one block table; each
model only has its own physical pool. Blocks never move, and a row is rolled back by lowering its length.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


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


class KVPool:
    """The keys and values of one model's layers, for every variant (reference and adapters) of it.

    A slot is one token position of one variant. Layers are allocated when the first forward shows their
    shape, so that any attention geometry fits without reading a config. Pools start as zeros: a masked NaN
    would still poison attention.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def free(self) -> None:
        """Let go of all layers' memory."""
        self._layers.clear()

    @property
    def layers(self) -> int:
        """How many layers have asked for memory."""
        return len(self._layers)

    @property
    def bytes_per_slot(self) -> dict[torch.device, int]:
        """Bytes of keys and values that one slot takes on each device, over all layers seen so far."""
        total: Counter[torch.device] = Counter()
        for layer in self._layers.values():
            for pool in layer:
                total[pool.device] += pool[0].nbytes
        return dict(total)

    def layer(self, index: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's whole memory.

        Args:
            index: Of the layer.
            keys: [N, kv_heads, head_dim] new keys, which show what they are like.
            values: [N, kv_heads, value_dim] new values.

        Returns:
            Key and value pools, each [slots + 1, kv_heads, dim]: the last slot is where padding goes.
        """
        pools = self._layers.get(index)
        if pools is None:
            pools = self._layers[index] = _zeros(self.slots + 1, keys), _zeros(self.slots + 1, values)
        return pools


def _zeros(slots: int, like: Tensor) -> Tensor:
    shape = (slots, *like.shape[1:])
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    # torch writes its zeros at once; numpy's are pages that cost nothing until they are used.
    return (
        torch.from_numpy(np.zeros(math.prod(shape) * like.element_size(), np.uint8))
        .view(like.dtype)
        .view(shape)
    )


def token_slots(blocks: Iterable[int], start: int, stop: int, block_size: int) -> Tensor:
    """Slots of the token positions `start` to `stop` of a row.

    Args:
        blocks: The row's block table.
        start: First position.
        stop: One past the last position.
        block_size: Positions per block.

    Returns:
        [stop - start] int64.
    """
    table = torch.as_tensor(list(blocks), dtype=torch.int64)
    positions = torch.arange(start, stop)
    return table[positions // block_size] * block_size + positions % block_size
