"""Reading and writing of the family's weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from .llama import SHAPE, Llama

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

# The model's parameters carry this prefix in Hugging Face's files.
PREFIX = "model."
EMBEDDING = "embed_tokens.weight"
BASE_LAYERS = range(30)


def load_base_state(folder: Path) -> dict[str, Tensor]:
    """Read the base model's parameters, by their names in `Llama`."""
    return _read(folder / "model.safetensors")


def load_llama(state: Mapping[str, Tensor], layers: Sequence[int] = BASE_LAYERS) -> Llama:
    """Build a model from some layers of a state.

    Args:
        state: Parameters by their names in `Llama`.
        layers: Which layers to keep, in order.

    Returns:
        The model, in single precision.
    """
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("layers.")}
    for position, source in enumerate(layers):
        start = f"layers.{source}."
        for name, tensor in state.items():
            if name.startswith(start):
                kept[f"layers.{position}.{name.removeprefix(start)}"] = tensor
    model = Llama(len(layers))
    model.load_state_dict(kept)
    return model


def save_reference(model: Llama, folder: Path) -> None:
    """Write the reference model: everything but the token embedding, which is the base's own."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = {
        PREFIX + name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != EMBEDDING
    }
    save_file(layers, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.dumps(_reference_config(len(model.layers)), indent=2)
    (folder / "config.json").write_text(config, encoding="utf-8")


def load_reference(folder: Path, base_state: Mapping[str, Tensor]) -> Llama:
    """Read the reference model, with the base model's token embedding."""
    state = _read(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    state[EMBEDDING] = base_state[EMBEDDING]
    return load_llama(state, range(config["num_hidden_layers"]))


def _read(path: Path) -> dict[str, Tensor]:
    return {name.removeprefix(PREFIX): tensor for name, tensor in load_file(path).items()}


def _reference_config(layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": SHAPE.hidden,
        "intermediate_size": SHAPE.feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": SHAPE.heads,
        "num_key_value_heads": SHAPE.key_value_heads,
        "head_dim": SHAPE.head,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rms_norm_eps": SHAPE.norm_epsilon,
        "rope_parameters": {"rope_theta": SHAPE.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": True,
        "vocab_size": SHAPE.vocabulary,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "attention_bias": False,
        "mlp_bias": False,
        "dtype": "bfloat16",
    }
