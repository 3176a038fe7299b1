"""What a pass reads, from a configuration alone."""

import pytest
import torch
from transformers import AutoConfig

from langchain_eft.diagnostics.plan import footprint


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mixtral", {"intermediate_size": 64, "num_local_experts": 8, "num_experts_per_tok": 2}),
        (
            "gemma4_text",
            {"enable_moe_block": True, "moe_intermediate_size": 64, "num_experts": 8, "top_k_experts": 2},
        ),
    ],
    ids=["mixtral", "gemma4"],
)
def test_embeddings_and_inactive_experts_are_not_read(kind, settings):
    shape = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 100}
    alike = {"hidden_size_per_layer_input": 0, "tie_word_embeddings": False}
    experts = AutoConfig.for_model(kind, **shape, **alike, **settings, num_key_value_heads=2)
    size = footprint.footprint_of_config("m", experts, torch.float32)
    all_experts = 2 * 8 * 3 * 32 * 64
    assert size.weights.linear + size.weights.other - size.read.linear - size.read.other == (
        all_experts * 3 // 4 + 100 * 32
    )
