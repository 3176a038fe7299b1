"""LoRA adapters in PEFT's format: random ones, and models with one in their weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel


def write_adapter(
    folder: Path,
    model: PreTrainedModel,
    targets: Sequence[str],
    rank: int,
    scales: tuple[float, float] = (0.5, 0.2),
    generator: torch.Generator | None = None,
) -> None:
    """Write a random adapter, large enough to change what is said.

    Args:
        folder: Where to write it.
        model: What it adapts.
        targets: How the names of the adapted layers end.
        rank: The rank of each update.
        scales: Deviations of the numbers in the A and the B matrices.
        generator: Where the numbers come from; None is torch's own.
    """
    tensors = {}
    for name, layer in model.named_modules():
        if name.endswith(tuple(targets)):
            for matrix, scale, shape in zip(
                "AB", scales, ((rank, layer.in_features), (layer.out_features, rank)), strict=True
            ):
                key = f"base_model.model.{name}.lora_{matrix}.weight"
                tensors[key] = scale * torch.randn(shape, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "bias": "none",
        "target_modules": [target.rpartition(".")[2] for target in targets],
        "base_model_name_or_path": "../reference",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def merged_weights(weights: Mapping[str, Tensor], adapter: Path) -> dict[str, Tensor]:
    """Weights of a model, by name, with the adapter in a folder added."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    merged = dict(weights)
    for key, down in tensors.items():
        if key.endswith("lora_A.weight"):
            name = key.removeprefix("base_model.model.").replace("lora_A.", "")
            up = tensors[key.replace("lora_A", "lora_B")].float()
            merged[name] = weights[name] + config["lora_alpha"] / config["r"] * (up @ down.float())
    return merged


def merged(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """A copy of the model with the adapter in a folder added."""
    model = copy.deepcopy(model)
    model.load_state_dict(merged_weights(model.state_dict(), adapter))
    return model
