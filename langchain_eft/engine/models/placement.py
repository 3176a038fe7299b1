"""Devices and precision of a recipe's models."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from langchain_eft.engine.config import EngineConfig, Quantization
from langchain_eft.engine.errors import DeviceLostError, RecipeError
from langchain_eft.engine.kernels.target import can_compile
from langchain_eft.engine.models.packed_weight import PackedWeight

recording_lock = threading.RLock()
"""Held while a CUDA graph is recorded, and by what would spoil a recording of any thread of the process:
another recording, waiting for a whole device, and returning memory to it."""


@dataclass(frozen=True)
class Placement:
    """Devices and precision of a recipe's models."""

    device: torch.device  # device of the base, and of all logits
    small_device: torch.device  # device of the other models
    dtype: torch.dtype  # type of activations, and of weights on a GPU
    rounding: torch.dtype | None = None  # type to round the weights to when they are loaded, or None
    quantization: Quantization | None = None
    device_map: str | None = None  # accelerate's strategy to spread the base's layers over devices, or None
    ranks: int = 1  # number of processes that share every layer of the base
    quantize_small: bool = False  # whether the other models are quantized too

    @classmethod
    def of(cls, config: EngineConfig) -> Placement:
        """The placement of a configuration.

        Raises:
            RecipeError: A device is not available, or cannot quantize the small models.
        """
        device = _device(config.device)
        placement = cls(
            device=device,
            small_device=device if config.small_device is None else _device(config.small_device),
            dtype=_dtype(config.dtype, device),
            rounding=torch.float16 if device.type == "cpu" and config.dtype == "float16" else None,
            quantization=config.quantization,
            device_map=config.device_map,
            ranks=config.tensor_parallel,
            quantize_small=config.quantize_small_models,
        )
        if placement.quantize_small and not placement.small.packs_int8:
            raise RecipeError(
                "quantize_small_models=True works only on a CPU in float32, but the small models are "
                f"on {placement.small_device} in {placement.dtype}: leave it out."
            )
        return placement

    @property
    def small(self) -> Placement:
        """The placement of the models other than the base."""
        quantization = self.quantization if self.quantize_small else None
        return Placement(self.small_device, self.small_device, self.dtype, self.rounding, quantization)

    @property
    def packs(self) -> bool:
        """Whether weights are packed for the kernels of a CPU."""
        whole = self.device_map is None and self.ranks == 1
        return whole and self.device.type == "cpu" and self.dtype == torch.float32 and can_compile()

    @property
    def packs_int8(self) -> bool:
        """Whether weights of linear layers are packed in 8 bits."""
        return self.packs and self.quantization == "int8"

    def make_current(self) -> None:
        """Make the base's device the current one of this thread: its streams and events belong there."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def require_working(self, reason: str) -> None:
        """Check that the devices answer. A CUDA device does not answer its process after an illegal access.

        Raises:
            DeviceLostError: They do not.
        """
        if not self._answers():
            raise DeviceLostError(
                f"The device {self.device} does not answer any more ({reason}). This process cannot use it "
                "again: start a new one."
            )

    def _answers(self) -> bool:
        if self.ranks > 1:  # a rank that has ended would be waited for without end
            return True
        devices = {self.device, self.small_device}
        if self.device_map:
            devices |= {torch.device("cuda", index) for index in range(torch.cuda.device_count())}
        try:
            with recording_lock:
                for device in devices:
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
        except RuntimeError:
            return False
        return True

    @property
    def on_single_device(self) -> bool:
        """Whether all models are on one device of this process. Only then can one CUDA graph hold a round."""
        return self.device == self.small_device and self.device_map is None and self.ranks == 1


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device  # a name may lack the index; the tensor's device has it
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"device={name!r} is not available here: use 'auto' or 'cpu'.") from error


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name == "float16" and device.type == "cpu":
        return torch.float32  # only weights are rounded: a CPU has no fast arithmetic in float16
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def storages(tensor: Tensor) -> Iterator[Tensor]:
    """The plain tensors that hold a tensor's data. Quantized and sharded tensors consist of several."""
    names = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
    parts = [getattr(tensor, name) for name in names]
    for part in parts:
        if isinstance(part, Tensor):
            yield from storages(part)
    if not parts:
        yield tensor


def unique_storages(tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """The plain tensors that hold the data of tensors, each once, by their address in memory."""
    parts = [part for tensor in tensors for part in storages(tensor)]
    return {_address(part): part for part in parts}


def _address(tensor: Tensor) -> int:
    """The address of a tensor's data; of the object where a packed format hides the data."""
    return id(tensor) if isinstance(tensor, PackedWeight) else tensor.data_ptr()
