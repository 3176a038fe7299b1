"""Memory for the recurrent states of one model.

A recurrent layer carries a state from token to token. It cannot go back, but drafts may be rejected. So a
slot holds the state behind tokens that are final, and the inputs of the few tokens behind them. The next pass
runs these again as far as they were accepted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from langchain_eft.engine.limits import LONGEST_DRAFT

MOST_REPLAYED = LONGEST_DRAFT + 1
"""Most tokens that a state does not contain yet: the longest draft and the token before it."""


@dataclass(frozen=True)
class ScanMemory:
    """What one layer's scan remembers.

    Attributes:
        states: [slots, heads, key_dim, value_dim] float32.
        ends: [slots] int64, how many tokens of the text a state contains.
        inputs: [slots, MOST_REPLAYED, size] float32, what the scan reads of the tokens behind them. A token
            lies at its position modulo `MOST_REPLAYED`.
    """

    states: Tensor
    ends: Tensor
    inputs: Tensor


class StatePool:
    """The states of one model's layers, for all variants. The last slot takes padding.

    A layer is allocated when its first forward pass shows its sizes, or by `allocate`.

    Args:
        num_slots: Slots of one variant.
        variants: Number of variants.
    """

    def __init__(self, num_slots: int, variants: int = 1) -> None:
        self.num_slots, self._variants = num_slots, variants
        self._scans: dict[int, ScanMemory] = {}
        self._windows: dict[int, Tensor] = {}

    @property
    def padding(self) -> int:
        """The slot that takes padding."""
        return self.num_slots * self._variants

    def scan(self, layer: int, heads: int, key_dim: int, value_dim: int, like: Tensor) -> ScanMemory:
        """The memory of a layer's scan; `like` is [N, size], what the scan reads of N tokens."""
        if layer not in self._scans:
            slots = self.padding + 1
            self._scans[layer] = ScanMemory(
                like.new_zeros(slots, heads, key_dim, value_dim),
                like.new_zeros(slots, dtype=torch.int64),
                like.new_zeros(slots, MOST_REPLAYED, like.shape[1]),
            )
        return self._scans[layer]

    def window(self, layer: int, reach: int, like: Tensor) -> Tensor:
        """The last inputs of a layer's convolution.

        Args:
            layer: Number of the layer.
            reach: Tokens that an output needs before its own.
            like: [N, channels] float32 inputs.

        Returns:
            [slots, W, channels] float32; a token lies at its position modulo W.
        """
        if layer not in self._windows:
            self._windows[layer] = like.new_zeros(self.padding + 1, reach + MOST_REPLAYED, like.shape[1])
        return self._windows[layer]

    def allocate(self, other: StatePool) -> None:
        """Allocate layers like those of another pool.

        Raises:
            OutOfMemoryError: The device has no memory for them.
        """
        slots = self.padding + 1
        for layer, scan in other._scans.items():
            parts = (scan.states, scan.ends, scan.inputs)
            self._scans[layer] = ScanMemory(*(part.new_zeros(slots, *part.shape[1:]) for part in parts))
        for layer, window in other._windows.items():
            self._windows[layer] = window.new_zeros(slots, *window.shape[1:])

    def free(self) -> None:
        """Free the memory of all layers."""
        self._scans.clear()
        self._windows.clear()

    def copy(self, source: int, target: int) -> None:
        """Copy what a slot holds, for all variants."""
        for tensor in self._tensors():
            for first in range(0, self.padding, self.num_slots):
                tensor[first + target] = tensor[first + source]

    @property
    def layers(self) -> set[int]:
        """The layers that have memory."""
        return self._scans.keys() | self._windows.keys()

    @property
    def bytes_per_slot(self) -> dict[torch.device, int]:
        """Bytes of one slot of one variant on each device."""
        total: Counter[torch.device] = Counter()
        for tensor in self._tensors():
            total[tensor.device] += tensor[0].nbytes
        return dict(total)

    def _tensors(self) -> Iterator[Tensor]:
        for scan in self._scans.values():
            yield from (scan.states, scan.ends, scan.inputs)
        yield from self._windows.values()
