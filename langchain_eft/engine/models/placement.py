"""Where the models of a recipe run, and in what numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from langchain_eft.engine.config import EngineConfig, Quantization
from langchain_eft.engine.errors import RecipeError


@dataclass(frozen=True)
class Placement:
    """Devices and precision of a recipe's models.

    Attributes:
        device: Where the base runs, and where all logits meet.
        small_device: Where the other models run.
        dtype: Of weights and activations.
        quantization: Of the base's linear layers, or None.
        device_map: How accelerate spreads the base's layers over devices, or None.
        ranks: Processes that share every layer of the base.
    """

    device: torch.device
    small_device: torch.device
    dtype: torch.dtype
    quantization: Quantization | None = None
    device_map: str | None = None
    ranks: int = 1

    @classmethod
    def of(cls, config: EngineConfig) -> Placement:
        """What a configuration asks for.

        Raises:
            RecipeError: A device that is not available here.
        """
        device = _device(config.device)
        return cls(
            device=device,
            small_device=device if config.small_device is None else _device(config.small_device),
            dtype=_dtype(config.dtype, device),
            quantization=config.quantization,
            device_map=config.device_map,
            ranks=config.tensor_parallel,
        )

    @property
    def small(self) -> Placement:
        """The same for the models beside the base."""
        return Placement(self.small_device, self.small_device, self.dtype)

    @property
    def on_single_device(self) -> bool:
        """Whether everything is on one device of this process, so that one CUDA graph can hold a round."""
        return self.device == self.small_device and self.device_map is None and self.ranks == 1


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device  # with its index, which a name may leave out
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"device={name!r} is not available here: use 'auto' or 'cpu'.") from error


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def storages(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors that hold a tensor's numbers: quantized and sharded ones are made of several."""
    names = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
    parts = [getattr(tensor, name) for name in names]
    for part in parts:
        if isinstance(part, Tensor):
            yield from storages(part)
    if not parts:
        yield tensor


def distinct(tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """The plain tensors that hold the tensors' numbers, each once, by their memory."""
    parts = [part for tensor in tensors for part in storages(tensor)]
    return {id(part) if part.is_mkldnn else part.data_ptr(): part for part in parts}
