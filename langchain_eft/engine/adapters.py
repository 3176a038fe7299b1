"""LoRA adapters in PEFT's file format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class LoraUpdate:
    """The update of one linear layer: `x -> x + up @ (down @ x)`, scale folded into `up`.

    Attributes:
        down: [r, in].
        up: [out, r].
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class LoraAdapter:
    """A behaviour as low-rank updates (Hu et al. 2021).

    Attributes:
        source: Folder that it came from.
        updates: Module name, as in the model's `named_modules()`, to its update.
    """

    source: str
    updates: dict[str, LoraUpdate]


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The folder's `adapter_config.json`.

    Raises:
        CheckpointNotFoundError: No PEFT adapter in the folder.
        RecipeError: An adapter kind that cannot be decoded as a low-rank update.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise CheckpointNotFoundError(
            f"{str(folder)!r} holds no adapter_config.json: give the folder that "
            "`PeftModel.save_pretrained` wrote."
        )
    config: dict[str, Any] = json.loads(path.read_text())
    refused = {
        "peft_type": config.get("peft_type", "LORA") != "LORA",
        "bias": config.get("bias", "none") != "none",
        "use_dora": bool(config.get("use_dora")),
        "fan_in_fan_out": bool(config.get("fan_in_fan_out")),
        "modules_to_save": bool(config.get("modules_to_save")),
    }
    for name, refuse in refused.items():
        if refuse:
            raise RecipeError(
                f"The adapter {str(folder)!r} has {name}={config[name]!r}, which is not a plain LoRA: "
                "merge it into its model and use `tuned=` instead."
            )
    return config


def load_adapter(folder: Path, dtype: torch.dtype, device: torch.device) -> LoraAdapter:
    """Read a PEFT LoRA folder.

    Raises:
        CheckpointNotFoundError: The folder holds no adapter.
        RecipeError: Not a plain LoRA on linear layers.
    """
    config = read_adapter_config(folder)
    weights_file = folder / "adapter_model.safetensors"
    if not weights_file.is_file():
        raise CheckpointNotFoundError(
            f"{str(folder)!r} holds no adapter_model.safetensors: save the adapter with "
            "safe_serialization=True."
        )
    tensors = load_file(weights_file)
    downs = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
    strangers = set(tensors) - {f"{d}.lora_{m}.weight" for d in downs for m in "AB"}
    if strangers or not downs:
        raise RecipeError(
            f"The adapter {str(folder)!r} holds tensors that are not LoRA pairs of linear layers "
            f"({sorted(strangers)[:3]}): merge it into its model and use `tuned=` instead."
        )
    updates = {}
    for key in sorted(downs):
        down = tensors[f"{key}.lora_A.weight"]
        name = key.removeprefix(_PREFIX)
        up = tensors[f"{key}.lora_B.weight"].float() * _scale(config, name, down.shape[0])
        updates[name] = LoraUpdate(down.to(device, dtype), up.to(device, dtype))
    return LoraAdapter(str(folder), updates)


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """Alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023)."""
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = next((v for k, v in patterns.items() if module.endswith(k)), config["lora_alpha"])
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
