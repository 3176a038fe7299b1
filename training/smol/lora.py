"""Low-rank adapters: training form, and PEFT folders."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from .llama import Llama

RANK = 32
SCALE = 2
TARGETS = {
    "self_attn": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
}
PEFT_PREFIX = "base_model.model.model."
WEIGHTS_FILE = "adapter_model.safetensors"


class LoraLinear(nn.Module):
    """A frozen linear map plus a trained one of low rank, which is zero at first."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.lora_A = nn.Parameter(torch.empty(rank, linear.in_features))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        update = F.linear(F.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype)) * SCALE
        output: Tensor = self.linear(x) + update
        return output


def add_adapter(model: Llama, rank: int = RANK) -> Llama:
    """Freeze `model` in place and put an adapter on each linear map of its layers."""
    model.requires_grad_(requires_grad=False)
    for name, linear in _linear_maps(model):
        block, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(block), attribute, LoraLinear(linear, rank))
    return model


def save_adapter(model: Llama, folder: Path, rank: int = RANK, trained_on: str = "../reference") -> None:
    """Write the adapter of `model` as a PEFT folder.

    Args:
        model: With an adapter.
        folder: Where to write it.
        rank: Its rank.
        trained_on: The model without it: a hub id, or a path from `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"{PEFT_PREFIX}{name}.weight": parameter.detach().to("cpu", torch.bfloat16)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": SCALE * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [name for names in TARGETS.values() for name in names],
        "base_model_name_or_path": trained_on,
        "inference_mode": True,
        "fan_in_fan_out": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _linear_maps(model: Llama) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the name and the module of each linear map, in the order of the adapters' draws."""
    for layer in range(len(model.layers)):
        for block, names in TARGETS.items():
            for name in names:
                path = f"layers.{layer}.{block}.{name}"
                linear = model.get_submodule(path)
                if not isinstance(linear, nn.Linear):
                    raise TypeError(f"{path} has an adapter already: start from the reference")
                yield path, linear
