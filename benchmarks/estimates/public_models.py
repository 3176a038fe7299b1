"""Shapes of public models, which is all that plans need. No weights and no texts of theirs are here.

The figures are those of the models' own `config.json` on huggingface.co. The number of weights that they
give is that of the model pages, which a test checks.
"""

from __future__ import annotations

from functools import cache

import torch
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

from langchain_eft.diagnostics.plan import BaseFormat, ShardedModel
from langchain_eft.diagnostics.plan.footprint import footprint_of_config


def _llama(hidden: int, intermediate: int, layers: int, heads: int, *, tied: bool = False) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, vocab_size=128256,
        num_attention_heads=heads, num_key_value_heads=8, max_position_embeddings=131072,
        tie_word_embeddings=tied,
    )  # fmt: skip


def _qwen(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, rows: int, *, tied: bool = False
) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, vocab_size=rows,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=32768,
        tie_word_embeddings=tied,
    )  # fmt: skip


CONFIGS: dict[str, PretrainedConfig] = {
    "meta-llama/Llama-3.2-1B": _llama(2048, 8192, 16, 32, tied=True),
    "meta-llama/Llama-3.1-8B": _llama(4096, 14336, 32, 32),
    "meta-llama/Llama-3.1-70B": _llama(8192, 28672, 80, 64),
    "meta-llama/Llama-3.1-405B": _llama(16384, 53248, 126, 128),
    "Qwen/Qwen2.5-0.5B": _qwen(896, 4864, 24, 14, 2, 151936, tied=True),
    "Qwen/Qwen2.5-32B": _qwen(5120, 27648, 64, 40, 8, 152064),
}
"""Configurations by the hub ids of base models. Their instruct versions have the same."""

WEIGHTS = {
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "meta-llama/Llama-3.1-405B": 405_853_388_800,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
}
"""Numbers of weights by the models' pages."""


def config_of(name: str) -> PretrainedConfig:
    """The configuration of a base model or of its instruct version."""
    return CONFIGS[name.removesuffix("-Instruct")]


@cache
def public_model(name: str, role: str = "base", base_format: BaseFormat | None = None) -> ShardedModel:
    """A public model, as vLLM serves it."""
    return ShardedModel(role, footprint_of_config(name, config_of(name), torch.bfloat16), base_format)
