"""Reading LoRA adapters in PEFT's file format."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError

_PREFIX = "base_model.model."

_PLAIN_LORA: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "bias": ("none",), "lora_bias": (False,), "use_dora": (False,),
    "use_qalora": (False,), "fan_in_fan_out": (False,), "modules_to_save": ([],),
    "layer_replication": ([],), "target_parameters": ([],),
    "trainable_token_indices": ([], {}), "alora_invocation_tokens": ([],),
}  # fmt: skip
"""Values that the settings of a plain low-rank update of linear layers may have, beside None."""


@dataclass(frozen=True)
class LoraUpdate:
    """The update of one linear layer: `up @ (down @ x)` is added to its output. `up` includes the scale.

    Attributes:
        down: [r, in].
        up: [out, r].
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class LoraAdapter:
    """A behavior as low-rank updates (Hu et al. 2021).

    Attributes:
        source: Folder of the adapter.
        updates: The update of each linear layer, by its name in the model's `named_modules()`.
        negated: Whether the scale of some layer is negative.
    """

    source: str
    updates: dict[str, LoraUpdate]
    negated: bool = False


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The folder's `adapter_config.json`.

    Raises:
        CheckpointNotFoundError: The folder holds no PEFT adapter.
        RecipeError: The adapter is not a plain low-rank update.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise CheckpointNotFoundError(
            f"{str(folder)!r} holds no adapter_config.json: give the folder that "
            "`PeftModel.save_pretrained` wrote."
        )
    config: dict[str, Any] = json.loads(path.read_text())
    for name, allowed in _PLAIN_LORA.items():
        if config.get(name) not in (*allowed, None):
            raise RecipeError(
                f"The adapter {str(folder)!r} has {name}={config[name]!r}, which is not a plain LoRA: "
                "merge it into its model and use `tuned=` instead."
            )
    initialization = str(config.get("init_lora_weights")).lower()
    if initialization.startswith(("pissa", "olora", "corda", "loftq")):
        raise RecipeError(
            f"The adapter {str(folder)!r} has init_lora_weights={initialization!r}, which also changes the "
            "model's weights: convert it with `path_initial_model_for_weight_conversion`, or merge it into "
            "its model and use `tuned=`."
        )
    return config


def load_adapter(folder: Path, dtype: torch.dtype, device: torch.device) -> LoraAdapter:
    """Read a PEFT LoRA folder.

    Raises:
        CheckpointNotFoundError: The folder holds no adapter.
        RecipeError: The adapter is not a plain LoRA of linear layers.
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
    unexpected = set(tensors) - {f"{d}.lora_{m}.weight" for d in downs for m in "AB"}
    if any(".lora_embedding_" in name for name in unexpected):
        raise RecipeError(
            f"The adapter {str(folder)!r} updates an embedding, but all behaviors share the embeddings here: "
            "merge it into its model and use `tuned=` instead."
        )
    if unexpected or not downs:
        raise RecipeError(
            f"The adapter {str(folder)!r} holds tensors that are not LoRA pairs of linear layers "
            f"({sorted(unexpected)[:3]}): merge it into its model and use `tuned=` instead."
        )
    updates, negated = {}, False
    for key in sorted(downs):
        down = tensors[f"{key}.lora_A.weight"]
        name = key.removeprefix(_PREFIX)
        scale = _scale(config, name, down.shape[0])
        up = tensors[f"{key}.lora_B.weight"].float() * scale
        updates[name] = LoraUpdate(down.to(device, dtype), up.to(device, dtype))
        negated = negated or not scale >= 0  # true for NaN too
    return LoraAdapter(str(folder), updates, negated)


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """Alpha / r, or alpha / sqrt(r) for rank-stabilized LoRA (Kalajdzievski 2023).

    The rank is that of the tensor, so `rank_pattern` is not needed. A pattern matches as in PEFT: it matches
    a whole module name, or the end of one after a dot.
    """
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    matches = (alpha for key, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", module))
    alpha = next(matches, config["lora_alpha"])
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)
