"""Named tensors in one block of memory, so that a single copy moves all of them between host and device."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Fields = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and type of each tensor, by name."""

_ALIGNMENT = 16


class PackedTensors:
    """Tensors that lie one after the other in one block of memory.

    Attributes:
        memory: [bytes] uint8, the whole block.

    Args:
        fields: The tensors of the block.
        device: Device of the block.
        pinned: Whether host memory is page-locked, which asynchronous copies need.
    """

    def __init__(self, fields: Fields, device: torch.device, *, pinned: bool = False) -> None:
        slices, end = {}, 0
        for name, (shape, dtype) in fields.items():
            size = torch.Size(shape).numel() * dtype.itemsize
            slices[name] = slice(end, end + size)
            end += -(-size // _ALIGNMENT) * _ALIGNMENT
        self.memory = torch.zeros(end, dtype=torch.uint8, device=device, pin_memory=pinned)
        self._tensors = {
            name: self.memory[slices[name]].view(dtype).view(shape) for name, (shape, dtype) in fields.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]


class HostToDevice:
    """The inputs of each round, from the host to the device.

    The host has two blocks: it writes one while the other may still be copied.

    Attributes:
        device: The block that the device reads, always at the same address.
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
        """A host block for the next round, filled with zeros."""
        self._turn = (self._turn + 1) % len(self._hosts)
        copied = self._copied[self._turn]
        if copied is not None:
            copied.synchronize()
        host = self._hosts[self._turn]
        host.memory.zero_()
        return host

    def send(self) -> None:
        """Copy the block that was opened last to the device, after the work that the device already has."""
        if self._cuda:
            self.device.memory.copy_(self._hosts[self._turn].memory, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._copied[self._turn] = event


@dataclass(frozen=True)
class PendingCopy:
    """A round's results while they are copied to the host.

    Attributes:
        content: The host block that takes them.
    """

    content: PackedTensors
    _arrived: torch.cuda.Event | None

    def read(self) -> PackedTensors:
        """Wait for the results and return them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self.content


class DeviceToHost:
    """The results of each round, from the device to the host. The results of two rounds may be unread.

    Attributes:
        device: The block that the device writes, always at the same address.
    """

    def __init__(self, fields: Fields, device: torch.device) -> None:
        self.device = PackedTensors(fields, device)
        self._cuda = device.type == "cuda"
        host = torch.device("cpu")
        self._hosts = [PackedTensors(fields, host, pinned=self._cuda) for _ in range(2)]
        self._turn = 0

    def send(self) -> PendingCopy:
        """Copy the results to the host, after the work that the device already has."""
        self._turn = (self._turn + 1) % len(self._hosts)
        host = self._hosts[self._turn]
        host.memory.copy_(self.device.memory, non_blocking=self._cuda)
        arrived = None
        if self._cuda:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        return PendingCopy(host, arrived)


Moment = float | torch.cuda.Event
"""A point in the device's work: a time, or an event of a CUDA device."""


def now(device: torch.device) -> Moment:
    """The point at which the device has done all work that it has been given so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def seconds_between(start: Moment, end: Moment) -> float:
    """Seconds from one point to a later one, both of which the device has passed."""
    if isinstance(start, float) or isinstance(end, float):
        return float(end) - float(start)  # type: ignore[arg-type]
    return float(start.elapsed_time(end)) / 1000
