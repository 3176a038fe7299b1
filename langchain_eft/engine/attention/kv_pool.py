"""Paged KV memory: one block allocator for all lockstep models, one pool of pages per model.

The models of a recipe see the same tokens at the same positions, so a request has one block table; each
model only has its own physical pool. Blocks never move, and a row is rolled back by lowering its length.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


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
        """Free the memory of all layers."""
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
