"""Named tensors in one block of memory, so that a single copy moves all of them between host and device."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Fields = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""RoundShape and type of each tensor."""

_ALIGNMENT = 16


class PackedTensors:
    """Tensors that lie one after the other in one block of memory.

    Attributes:
        memory: [bytes] uint8, all of it.

    Args:
        fields: What the block holds.
        device: Where it lies.
        pinned: Whether host memory is page-locked, as copies that nobody waits for need it.
    """

    def __init__(self, fields: Fields, device: torch.device, *, pinned: bool = False) -> None:
        places, end = {}, 0
        for name, (shape, dtype) in fields.items():
            size = torch.Size(shape).numel() * dtype.itemsize
            places[name] = slice(end, end + size)
            end += -(-size // _ALIGNMENT) * _ALIGNMENT
        self.memory = torch.zeros(end, dtype=torch.uint8, device=device, pin_memory=pinned)
        self._tensors = {
            name: self.memory[places[name]].view(dtype).view(shape) for name, (shape, dtype) in fields.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]


class HostToDevice:
    """What the host tells the device each round.

    The host writes one of two blocks while the other may still be on its way.

    Attributes:
        device: What the device reads, always in the same place.
    """

    def __init__(self, fields: Fields, device: torch.device) -> None:
        self.device = PackedTensors(fields, device)
        self._cuda = device.type == "cuda"
        host = torch.device("cpu")
        self._hosts = (
            [PackedTensors(fields, host, pinned=True) for _ in range(2)] if self._cuda else [self.device]
        )
        self._copied: list[torch.cuda.Event | None] = [None] * len(self._hosts)
        self._turn = 0

    def open(self) -> PackedTensors:
        """The host's block, empty, for the next round."""
        self._turn = (self._turn + 1) % len(self._hosts)
        copied = self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        host = self._hosts[self._turn]
        host.memory.zero_()
        return host

    def send(self) -> None:
        """Copy the block last opened to the device, behind what the device is doing."""
        if self._cuda:
            self.device.memory.copy_(self._hosts[self._turn].memory, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._copied[self._turn] = event


@dataclass(frozen=True)
class PendingCopy:
    """A round's results on their way to the host.

    Attributes:
        content: Where they arrive.
    """

    content: PackedTensors
    _arrived: torch.cuda.Event | None

    def read(self) -> PackedTensors:
        """Wait for the results."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self.content


class DeviceToHost:
    """What the device tells the host each round; the results of two rounds may be unread.

    Attributes:
        device: What the device writes, always in the same place.
    """

    def __init__(self, fields: Fields, device: torch.device) -> None:
        self.device = PackedTensors(fields, device)
        self._cuda = device.type == "cuda"
        host = torch.device("cpu")
        self._hosts = [PackedTensors(fields, host, pinned=self._cuda) for _ in range(2)]
        self._turn = 0

    def send(self) -> PendingCopy:
        """Copy the results to the host, behind what the device is doing."""
        self._turn = (self._turn + 1) % len(self._hosts)
        host = self._hosts[self._turn]
        host.memory.copy_(self.device.memory, non_blocking=self._cuda)
        arrived = None
        if self._cuda:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        return PendingCopy(host, arrived)


Moment = float | torch.cuda.Event
"""A point in the device's work."""


def now(device: torch.device) -> Moment:
    """The point that the device reaches when it has done all that it was told so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def seconds_between(start: Moment, end: Moment) -> float:
    """Time from one point to a later one that the device has passed."""
    if isinstance(start, float) or isinstance(end, float):
        return float(end) - float(start)  # type: ignore[arg-type]
    return float(start.elapsed_time(end)) / 1000
