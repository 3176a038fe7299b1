"""How much memory a device has left, and how much a checkpoint will take."""

from __future__ import annotations

import math
from pathlib import Path

import psutil
import torch
from safetensors import safe_open

from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.placement import Placement


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def gib(size: float) -> str:
    """A number of bytes for people to read."""
    return f"{size / 2**30:.2f} GiB"


def weight_bytes(folder: Path, placement: Placement) -> int:
    """Bytes that the weights in a folder's safetensors files will take; 0 where there are none."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                shape = tensors.get_slice(name).get_shape()
                layer = name.rpartition(".")[0]
                eight_bits = (
                    placement.quantization is not None
                    and len(shape) == 2
                    and not layer.endswith(("embed_tokens", "wte", "lm_head", "embed_in", "embed_out"))
                )
                total += math.prod(shape) * (1 if eight_bits else placement.dtype.itemsize)
    return total


def require_memory_for(folder: str, placement: Placement) -> None:
    """Refuse weights that do not fit, before they are read.

    Raises:
        InsufficientMemoryError: With what is needed and what is free.
    """
    device, needed = placement.device, weight_bytes(Path(folder), placement) // placement.ranks
    free = free_memory(device)
    if placement.device_map and device.type == "cuda":
        free = sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
    if needed > free:
        precision = placement.quantization or str(placement.dtype).removeprefix("torch.")
        raise InsufficientMemoryError(
            f"{folder!r} needs {gib(needed)} of memory in {precision} and {gib(free)} are free on {device}: "
            "choose a smaller model or dtype, `quantization` or another device, or close what else is loaded."
        )
