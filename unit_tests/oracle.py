"""The formula and merged adapters by their definitions. Tests compare the engine with this code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def formula_log_p(
    large: Tensor,
    small: Tensor,
    tuned: Mapping[str, Tensor],
    mixture: Mapping[str, float],
    strength: float = 1.0,
    top_p: float = 1.0,
    unscaled: Iterable[int] = (),
) -> Tensor:
    """Normalized log p of the formula (Mitchell et al. 2023, eq. 4 and 7).

    Args:
        large: [..., V] log-probabilities of L.
        small: [..., V] log-probabilities of S.
        tuned: [..., V] log-probabilities of each F_i.
        mixture: Weight of each F_i.
        strength: beta.
        top_p: Nucleus of the small mixture that bounds up-scaling.
        unscaled: Token ids that are not up-scaled.

    Returns:
        [..., V].
    """
    delta = sum((weight * (tuned[name] - small) for name, weight in mixture.items()), torch.zeros_like(small))
    mixed, upscale = (small + delta).log_softmax(-1), strength * (large - small)
    if mixture:
        upscale[..., list(unscaled)] = 0.0
    return conservative_log_p(mixed, upscale, top_p)


def conservative_log_p(mixed: Tensor, upscale: Tensor, top_p: float) -> Tensor:
    """Up-scale the tokens of the small mixture's nucleus only.

    Args:
        mixed: [..., V] log-probabilities of the small mixture.
        upscale: [..., V] logarithm of the up-scaling weights.
        top_p: The nucleus; 1 is all tokens.

    Returns:
        [..., V] normalized log p.
    """
    if top_p < 1:
        ordered, order = mixed.double().sort(descending=True, stable=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        nucleus = torch.zeros_like(mixed, dtype=torch.bool).scatter(-1, order, before < top_p)
        upscale = torch.where(nucleus, upscale, 0.0)
    return (mixed + upscale).log_softmax(-1)


def merged_weights(weights: Mapping[str, Tensor], adapter: Path) -> dict[str, Tensor]:
    """Add a LoRA adapter in PEFT's format to the weights of its model.

    Args:
        weights: The model's weights by name.
        adapter: Folder of the adapter.
    """
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    merged = dict(weights)
    for key, down in tensors.items():
        if key.endswith("lora_A.weight"):
            name = key.removeprefix("base_model.model.").replace("lora_A.", "")
            up = tensors[key.replace("lora_A", "lora_B")].float()
            merged[name] = weights[name] + config["lora_alpha"] / config["r"] * (up @ down.float())
    return merged
