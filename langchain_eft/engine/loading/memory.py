"""Free memory of devices, and the memory that the weights of a checkpoint will take."""

from __future__ import annotations

import ctypes
import json
import math
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from safetensors import safe_open

from langchain_eft.engine.errors import InsufficientMemoryError, reading
from langchain_eft.engine.models.placement import Placement, recording_lock
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


def return_freed_memory() -> None:
    """Give memory that was freed back to the system, for other processes and for the next engine.

    PyTorch's allocator keeps freed GPU memory. The C library of Linux keeps freed memory of the CPU.
    """
    # Nothing happens where CUDA is not in use. Until pytorch#180395, it fails after a recording that failed.
    with recording_lock, suppress(RuntimeError):
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # musl has none
        libc.malloc_trim(0)


def gib(size: float) -> str:
    """A number of bytes as text, in GiB."""
    return f"{size / 2**30:.2f} GiB"


@dataclass(frozen=True)
class WeightCount:
    """Number of weights of a model."""

    linear: int  # weights of linear layers, which quantization packs
    other: int  # weights of embeddings, output head and norms
    experts: int = 0  # the part of `linear` that belongs to experts
    in_16_bits: bool = False  # whether the checkpoint holds bfloat16 or float16
    # size of a checkpoint that is already quantized, which is also its size in memory; else None
    stored: int | None = None
    # size of the packed blocks of a GGUF file, which stay where kernels multiply them; else None
    in_blocks: int | None = None

    def nbytes(self, placement: Placement) -> int:
        """Size in memory, in bytes."""
        if self.in_blocks is not None and placement.packs:
            return self.in_blocks
        if self.stored is not None:
            return self.stored
        plain = packed = placement.dtype.itemsize
        if placement.packs and (self.in_16_bits or placement.rounding):
            packed = 2
        linear: float = (self.linear - self.experts) * packed + self.experts * plain
        if placement.quantization:
            linear = self.linear * BITS[placement.quantization] / 8
        return int(linear) + self.other * packed


_FETCH_AGAIN = "fetch the model again, or use another checkpoint"

_UNQUANTIZED = ("embed", "lm_head", "wte", "wpe", "output.weight")
"""Parts of the names of matrices that quantization leaves alone."""


class TensorHeader(NamedTuple):
    """What a safetensors file says of a tensor."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  # such as "BF16"

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        bits = re.search(r"\d+", self.dtype)  # the first number, but "BOOL" has none
        return math.prod(self.shape) * int(bits[0] if bits else 8) // 8


def tensor_headers(folder: Path) -> dict[str, TensorHeader]:
    """The tensors in a folder's safetensors files, by name.

    Raises:
        CheckpointNotFoundError: A file is damaged.
    """
    headers = {}
    for file in sorted(folder.glob("*.safetensors")):
        with reading(file, _FETCH_AGAIN), safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                values = tensors.get_slice(name)
                headers[name] = TensorHeader(file, tuple(values.get_shape()), values.get_dtype())
    return headers


def count_weights(folder: Path) -> WeightCount:
    """Count the weights in a folder's safetensors files.

    Raises:
        CheckpointNotFoundError: A file is damaged.
    """
    headers = tensor_headers(folder)
    linear = other = experts = 0
    for name, header in headers.items():
        number = math.prod(header.shape)
        experts += number if ".experts." in name else 0
        if len(header.shape) >= 2 and not any(part in name for part in _UNQUANTIZED):
            linear += number
        else:
            other += number
    config = folder / "config.json"
    with reading(config, _FETCH_AGAIN):
        quantized = config.is_file() and json.loads(config.read_text()).get("quantization_config")
    stored = sum(header.nbytes for header in headers.values()) if quantized else None
    in_16_bits = {header.dtype for header in headers.values()} <= {"BF16", "F16"}
    return WeightCount(linear, other, experts, in_16_bits, stored)


LESS_MEMORY = (
    "quantize the base with `quantization`, use a smaller model or dtype or another device, or close other "
    "programs and engines"
)
"""What to do where models do not fit."""


def require_memory(needs: Mapping[str, int], free: int, device_name: str) -> None:
    """Refuse models that do not fit the free memory together.

    Raises:
        InsufficientMemoryError: The models do not fit; the message has the sizes and the free memory.
    """
    needed = sum(needs.values())
    if needed > free:
        parts = ", ".join(f"{name}: {gib(size)}" for name, size in needs.items())
        raise InsufficientMemoryError(
            f"The weights need {gib(needed)} of memory ({parts}), but only {gib(free)} are free on "
            f"{device_name}: {LESS_MEMORY}."
        )
