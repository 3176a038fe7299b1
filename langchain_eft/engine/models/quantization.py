"""Quantization of the base by torchao (after loading) or by bitsandbytes (while loading).

The linear layers take half the memory or less. With suitable GPU kernels, a step also reads fewer bytes.

Only the base is quantized. The mixture's weights would multiply the rounding error of the small models,
because they scale the difference of two small models. Embeddings and the output head keep their precision.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from langchain_eft.engine.config import Quantization
from langchain_eft.engine.errors import RecipeError

BITS: dict[Quantization, float] = {"int8": 8.0, "fp8": 8.0, "nf4": 4.5}
"""Bits per weight. nf4 includes a float32 scale for every 64 weights."""


def bitsandbytes_config(kind: Quantization | None, dtype: torch.dtype) -> Any:
    """The `quantization_config` of `from_pretrained`, or None if `kind` does not quantize while loading.

    Raises:
        RecipeError: bitsandbytes is not installed.
    """
    if kind != "nf4":
        return None
    if find_spec("bitsandbytes") is None:
        raise RecipeError(
            "quantization='nf4' needs bitsandbytes: run `pip install \"langchain-eft[quantization]\"`."
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def quantize(module: Any, kind: Quantization, device: torch.device | None) -> None:
    """Quantize the linear layers of a causal language model in place by torchao, with one scale for each row.

    Args:
        module: The model.
        kind: `int8` for weights only; `fp8` for weights and activations (on GPUs since Ada and Hopper).
        device: Device to move each layer to before it is quantized; None does not move layers.

    Raises:
        RecipeError: torchao is not installed, or the device cannot compute in fp8.
    """
    try:
        from torchao.quantization import (  # type: ignore[import-not-found, unused-ignore]
            Float8DynamicActivationFloat8WeightConfig,
            Int8WeightOnlyConfig,
            PerRow,
            quantize_,
        )
    except ImportError as error:
        raise RecipeError(
            f'quantization={kind!r} needs torchao: run `pip install "langchain-eft[quantization]"`.'
        ) from error
    if kind == "fp8":
        _require_fp8(next(module.parameters()).device if device is None else device)
    config = (
        Int8WeightOnlyConfig()
        if kind == "int8"
        else Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    )
    head = module.get_output_embeddings()

    def is_quantized(layer: nn.Module, _: str) -> bool:
        return isinstance(layer, nn.Linear) and layer is not head

    quantize_(module, config, filter_fn=is_quantized, device=device)


def _require_fp8(device: torch.device) -> None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        raise RecipeError(
            f"quantization='fp8' needs a GPU of compute capability 8.9 or higher, but the device is "
            f"{device}: use 'int8'."
        )
