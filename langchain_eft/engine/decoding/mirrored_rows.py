"""Rows of numbers that the host writes and a device reads."""

from __future__ import annotations

import torch
from torch import Tensor


class MirroredRows:
    """Numbers of requests, a row for each. The host has the truth, and sends the rows that it has changed.

    Attributes:
        host: The numbers. Whoever changes a row says so by `touch`.
        device: The same at a fixed address on the device. On a CPU it is `host` itself.

    Args:
        host: The numbers to begin with.
        device: Where they are read.
        dim: The axis of the rows.
    """

    def __init__(self, host: Tensor, device: torch.device, dim: int = 0) -> None:
        self.host, self._dim = host, dim
        self.device = host if device.type == "cpu" else host.to(device)
        self._touched: set[int] = set()

    def touch(self, *rows: int) -> None:
        """Say that rows have changed."""
        self._touched.update(rows)

    def flush(self) -> None:
        """Send what has changed, behind the work that the device already has."""
        if self._touched and self.device is not self.host:
            rows = torch.tensor(sorted(self._touched))
            values = self.host.index_select(self._dim, rows)
            if self.device.is_cuda:
                # Copies of their own, which nobody changes while they are on their way.
                rows, values = rows.pin_memory(), values.pin_memory()
            where = self.device.device
            self.device.index_copy_(
                self._dim, rows.to(where, non_blocking=True), values.to(where, non_blocking=True)
            )
        self._touched.clear()
