"""A tiny random family that has every kind of model that an export may have, as a folder that vLLM serves."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from unit_tests.oracle.adapters import merged, write_adapter

VOCABULARY = 512
NEVER = frozenset({500, 501, 502})
"""Ids that mean other tokens in some model."""

END = 2

BASE = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
WIDE = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "num_key_value_heads": 1}
"""Other heads, layers and sizes than the other small models, and a longer embedding matrix."""

ALL_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

SECTION = {
    "version": 1,
    "base_name": "tiny/base",
    "base_architectures": ["LlamaForCausalLM"],
    "models": {
        "reference": {"subfolder": "eft/reference"},
        "one": {"subfolder": "eft/one", "adapter_of": "reference"},
        "two": {"subfolder": "eft/two", "adapter_of": "reference"},
        "three": {"subfolder": "eft/three"},
        "wide-reference": {"subfolder": "eft/wide-reference"},
        "wide": {"subfolder": "eft/wide"},
        "bare-reference": {"subfolder": "eft/bare-reference"},
        "bare": {"subfolder": "eft/bare", "adapter_of": "bare-reference"},
        "own": {"subfolder": "eft/own", "adapter_of": "base"},
    },
    "behaviors": {
        "one": {"tuned": "one", "reference": "reference"},
        "two": {"tuned": "two", "reference": "reference"},
        "three": {"tuned": "three", "reference": "reference"},
        "wide": {"tuned": "wide", "reference": "wide-reference"},
        "bare": {"tuned": "bare", "reference": "bare-reference"},
        "own": {"tuned": "own", "reference": "base"},
    },
    "mixture": {"one": 1.0},
    "vocabulary_size": VOCABULARY,
    "common": [[0, 500], [503, VOCABULARY]],
    "unscaled": [],
    "end_ids": [END, 7],
    "window": 512,
}


def build_family(folder: Path) -> Path:
    """Write the family.

    Returns:
        The folder to serve.
    """
    _save(folder, 0, **BASE)
    _save(folder / "eft/reference", 1, **SMALL)
    _save_adapter(folder / "eft/one", folder / "eft/reference", 10, rank=4, layers=ALL_LAYERS)
    _save_adapter(folder / "eft/two", folder / "eft/reference", 11, rank=2, layers=("q_proj", "v_proj"))
    _save(folder / "eft/three", 3, **SMALL)
    _save(folder / "eft/wide-reference", 4, vocab_size=VOCABULARY + 64, **WIDE)
    _save(folder / "eft/wide", 5, vocab_size=VOCABULARY + 64, **WIDE)
    _save(folder / "eft/bare-reference", 6, **{**BASE, "num_hidden_layers": 2})
    _drop_embeddings(folder / "eft/bare-reference")
    _save_adapter(folder / "eft/bare", folder / "eft/bare-reference", 12, rank=3, layers=ALL_LAYERS)
    _save_adapter(folder / "eft/own", folder, 13, rank=4, layers=("q_proj", "k_proj", "down_proj"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["EFTForCausalLM"], "eft": SECTION}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, name: str) -> PreTrainedModel:
    """One of the family's models as transformers computes it, in float32."""
    whole = SECTION["models"].get(name, {}).get("adapter_of", name)
    place = folder if whole == "base" else folder / "eft" / whole
    model = LlamaForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    if whole == "bare-reference":
        base = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.set_input_embeddings(base.get_input_embeddings())
        model.set_output_embeddings(base.get_output_embeddings())
    return model if whole == name else merged(model, folder / "eft" / name)


def _save(folder: Path, seed: int, vocab_size: int = VOCABULARY, **shape: int) -> None:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        intermediate_size=2 * shape["hidden_size"],
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=END,
        **shape,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _drop_embeddings(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if "embed_tokens" not in name and "lm_head" not in name
    }
    save_file(kept, file, metadata={"format": "pt"})


def _save_adapter(folder: Path, reference: Path, seed: int, rank: int, layers: tuple[str, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(reference)
    write_adapter(folder, model, layers, rank, (0.3, 0.3), generator)
