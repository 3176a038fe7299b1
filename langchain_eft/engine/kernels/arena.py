"""Memory in which a model's weights lie one behind the other, in the order of their use.

A kernel asks memory for what it reads soon. At the end of a weight it asks for the beginning of the next one.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 25
"""Bytes that are asked of the system at a time: the last chunk is half empty, on average."""

_ALIGNMENT = 64
"""Bytes of a line of the processor's cache."""


class Arena:
    """A growing memory. Nothing is given back before all that it gave is freed."""

    def __init__(self) -> None:
        self._free = torch.empty(0, dtype=torch.uint8)

    def take(self, size: int) -> Tensor:
        """The next `size` bytes, [size] uint8, at an address that is a multiple of 64."""
        padded = -(-size // _ALIGNMENT) * _ALIGNMENT
        if padded > len(self._free):
            memory = torch.empty(max(padded, _CHUNK) + _ALIGNMENT, dtype=torch.uint8)
            self._free = memory[-memory.data_ptr() % _ALIGNMENT :]
        taken, self._free = self._free[:size], self._free[padded:]
        return taken
