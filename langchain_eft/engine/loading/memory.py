"""How much memory a device has left, and how much a checkpoint will take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import safe_open

from langchain_eft.engine.config import Quantization
from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.models.quantization import BITS


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def free_memory_everywhere(device: torch.device) -> int:
    """Bytes that can still be allocated on all devices of a kind."""
    if device.type != "cuda":
        return free_memory(device)
    return sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))


def gib(size: float) -> str:
    """A number of bytes for people to read."""
    return f"{size / 2**30:.2f} GiB"


@dataclass(frozen=True)
class WeightCount:
    """How many weights a model has.

    Attributes:
        linear: Those of linear layers, which quantization packs.
        other: Embeddings, output head, norms.
        stored: Bytes of a checkpoint that is quantized already, which loads as it is; else None.
    """

    linear: int
    other: int
    stored: int | None = None

    def nbytes(self, dtype: torch.dtype, quantization: Quantization | None = None) -> int:
        """Bytes in memory."""
        if self.stored is not None:
            return self.stored
        linear = dtype.itemsize if quantization is None else BITS[quantization] / 8
        return int(self.linear * linear) + self.other * dtype.itemsize


_KEPT = ("embed", "lm_head", "wte", "wpe", "output.weight")


def count_weights(folder: Path) -> WeightCount:
    """The weights in a folder's safetensors files, from their headers."""
    linear = other = 0
    files = list(folder.glob("*.safetensors"))
    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                shape = tensors.get_slice(name).get_shape()
                if len(shape) >= 2 and not any(part in name for part in _KEPT):
                    linear += math.prod(shape)
                else:
                    other += math.prod(shape)
    config = folder / "config.json"
    quantized = config.is_file() and json.loads(config.read_text()).get("quantization_config")
    return WeightCount(linear, other, sum(file.stat().st_size for file in files) if quantized else None)


def require_memory(needs: Mapping[str, int], free: int, where: str) -> None:
    """Refuse weights that do not fit together, before they are fetched or read.

    Args:
        needs: Bytes of each model by its name.
        free: Bytes that are free.
        where: On which device.

    Raises:
        InsufficientMemoryError: With what is needed and what is free.
    """
    needed = sum(needs.values())
    if needed > free:
        parts = ", ".join(f"{name}: {gib(size)}" for name, size in needs.items())
        raise InsufficientMemoryError(
            f"The weights need {gib(needed)} of memory ({parts}) and {gib(free)} are free on {where}: "
            "quantize the base with `quantization`, take a smaller model, dtype or another device, or close "
            "what else is loaded."
        )
