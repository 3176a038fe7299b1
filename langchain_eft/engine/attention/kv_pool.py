"""Paged KV memory of one model.

Models that read the same prompt compute the same positions, so they share one block table per prompt
(`scheduling.prompt_state`). Each model has a physical pool of its own. Blocks never move. Lowering a row's
length is enough to discard its last positions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from langchain_eft.engine.kernels.target import LANES

_LINE = 64
"""Bytes of a line of a CPU's cache. A vector that lies in two lines is read at half the speed."""


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

    def free(self) -> None:
        """Free the memory of all layers."""
        self._layers.clear()

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
            [slots + n, kv_heads, dim + value_dim] keys and values, in the order of the attention function.
            The last slot takes padding.
        """
        memory = self._layers.get(index)
        if memory is None:
            slots = -(-self.slots // LANES) * LANES + LANES  # whole tiles, and what is read beyond them
            shape = slots, keys.shape[1], keys.shape[-1] + values.shape[-1]
            memory = self._layers[index] = _zeros(shape, keys)
        return memory


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    # torch writes its zeros at once. The pages of numpy's zeros take no memory until they are used.
    size = math.prod(shape) * like.element_size()
    zeros = np.zeros(size + _LINE, np.uint8)
    first = -zeros.ctypes.data % _LINE
    return torch.from_numpy(zeros[first : first + size]).view(like.dtype).view(shape)
