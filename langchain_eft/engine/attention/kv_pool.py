"""Paged KV memory of one model.

Models that read the same prompt compute the same positions, so they share one block table per prompt
(`scheduling.prompt_state`). Each model has a physical pool of its own. Blocks never move. Lowering a row's
length is enough to discard its last positions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


class KVPool:
    """The keys and values of one model's layers, for all variants (the model itself and its adapters).

    A slot holds one token position of one variant. A layer is allocated when its first forward pass shows the
    shape of its keys and values, so no config has to describe the attention geometry. `allocate` takes the
    shapes from a pool that has seen one. Pools start as zeros, because a NaN would spoil attention even at a
    masked position.

    Args:
        slots: Number of slots.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._layers: dict[int, Tensor] = {}
        self._scratch: dict[tuple[str, torch.device], Tensor] = {}

    def free(self) -> None:
        """Free the memory of all layers."""
        self._layers.clear()
        self._scratch.clear()

    def allocate(self, layers: Mapping[int, Tensor]) -> None:
        """Allocate layers like those of another pool.

        Args:
            layers: The other pool's `layers`.

        Raises:
            OutOfMemoryError: The device has no memory for them.
            MemoryError: The CPU has none.
        """
        for index, layer in layers.items():
            self.layer(index, layer[:, :, None], layer[:, :, None, :0])

    @property
    def layers(self) -> dict[int, Tensor]:
        """Memory without a slot, [0, kv_heads, dim + value_dim], of each layer allocated so far."""
        return {index: layer.new_empty(0, *layer.shape[1:]) for index, layer in self._layers.items()}

    @property
    def bytes_per_slot(self) -> dict[torch.device, int]:
        """Bytes of one slot's keys and values on each device, over all layers allocated so far."""
        total: Counter[torch.device] = Counter()
        for layer in self._layers.values():
            total[layer.device] += layer[0].nbytes
        return dict(total)

    def layer(self, index: int, keys: Tensor, values: Tensor) -> Tensor:
        """The memory of one layer.

        Args:
            index: Number of the layer.
            keys: [1, kv_heads, N, dim] new keys, for their shape, type and device.
            values: [1, kv_heads, N, value_dim] new values, for their shape.

        Returns:
            [slots + 1, kv_heads, dim + value_dim] keys and values. The last slot takes padding.
        """
        memory = self._layers.get(index)
        if memory is None:
            shape = self.slots + 1, keys.shape[1], keys.shape[-1] + values.shape[-1]
            memory = self._layers[index] = _zeros(shape, keys)
        return memory

    def scratch(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory that is used again.

        The system would map new memory of some MB page by page at every layer, and that takes longer.

        Args:
            name: What it is for: the next call with this name returns the same memory.
            shape: Shape of the result.
            like: A tensor of the same type and on the same device.
        """
        key, size = (name, like.device), math.prod(shape)
        if key not in self._scratch or self._scratch[key].numel() < size:
            with torch.inference_mode(mode=False):  # an ordinary tensor, which every pass may overwrite
                self._scratch[key] = like.new_empty(size)
        return self._scratch[key][:size].view(shape)


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    # torch writes its zeros at once. The pages of numpy's zeros take no memory until they are used.
    return (
        torch.from_numpy(np.zeros(math.prod(shape) * like.element_size(), np.uint8))
        .view(like.dtype)
        .view(shape)
    )


def token_slots(
    tables: Sequence[Sequence[int]], lengths: Sequence[int], padded: int, block_size: int
) -> Tensor:
    """Slots of the token positions of some rows.

    Args:
        tables: Block ids of each of R rows, in order.
        lengths: Number of token positions of each row.
        padded: T, at least the largest length.
        block_size: Token positions per block.

    Returns:
        [R, T] int64. A row's first slot fills it up: what another request has left in memory may be NaN.
    """
    width = -(-padded // block_size)
    table = torch.tensor([[*blocks[:width], *[blocks[0]] * (width - len(blocks))] for blocks in tables])
    slots = (table[..., None] * block_size + torch.arange(block_size)).flatten(1)[:, :padded]
    used = torch.arange(padded) < torch.tensor(lengths)[:, None]
    return torch.where(used, slots, slots[:, :1])
