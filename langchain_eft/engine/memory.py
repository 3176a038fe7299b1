"""How much memory a device has left, and how much a checkpoint will take."""

from __future__ import annotations

import math
from pathlib import Path

import psutil
import torch
from safetensors import safe_open

from langchain_eft.engine.errors import InsufficientMemoryError


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def gib(size: float) -> str:
    """A number of bytes for people to read."""
    return f"{size / 2**30:.2f} GiB"


def parameters(folder: Path) -> int:
    """Number of weights in a folder's safetensors files; 0 where there are none."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def require_memory_for(folder: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse weights that do not fit, before they are read.

    Raises:
        InsufficientMemoryError: With what is needed and what is free.
    """
    needed, free = parameters(Path(folder)) * dtype.itemsize, free_memory(device)
    if needed > free:
        precision = str(dtype).removeprefix("torch.")
        raise InsufficientMemoryError(
            f"{folder!r} needs {gib(needed)} of memory in {precision} and {gib(free)} are free on {device}: "
            "choose a smaller model, a smaller dtype or another device, or close what else is loaded."
        )
