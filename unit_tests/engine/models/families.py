"""Tiny configurations of the families that the engine decodes, and of those that it refuses."""

from typing import Any

import pytest
import transformers
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.models.gptj import modeling_gptj

from unit_tests.tiny import tokenizer

WINDOW = 8
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,  # large enough that a wrong mask or position changes the answer
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 0,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
HEADS = {"num_key_value_heads": 2}  # for families that compute the size of a head
SLIDING = {**GROUPED, "sliding_window": WINDOW}
ALTERNATING = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROUTED = {**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1}
IN_GROUPS = {"n_group": 2, "topk_group": 1}
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 8, "q_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8, "v_head_dim": 12,
}  # fmt: skip

FULL_ATTENTION = {
    "llama": GROUPED,
    "smollm3": {**GROUPED, "no_rope_layers": [1, 0]},
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "phi3": GROUPED,
    "olmo2": GROUPED,
    "gpt_neox": {},
    "apertus": HEADS,
    "arcee": GROUPED,
    "bitnet": HEADS,
    "cohere": HEADS,
    "ernie4_5": GROUPED,
    "gemma": GROUPED,
    "glm": GROUPED,
    "glm4": GROUPED,
    "gpt2": {},
    "gptj": {"rotary_dim": 4},
    "granite": {
        **HEADS,
        "embedding_multiplier": 2.0,
        "logits_scaling": 2.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
    },
    "helium": GROUPED,
    "hunyuan_v1_dense": GROUPED,
    "hyperclovax": {**GROUPED, "residual_multiplier": 0.5, "attention_multiplier": 0.3},
    "internlm3": GROUPED,
    "iquestcoder": GROUPED,
    "jais2": GROUPED,
    "nanochat": HEADS,
    "olmo": HEADS,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.4},
    "persimmon": {},
    "phi": HEADS,
    "seed_oss": GROUPED,
}
WINDOWS = {
    "mistral": SLIDING,
    "gemma2": {
        **SLIDING, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0,
    },
    "gemma3_text": {**SLIDING, "query_pre_attn_scalar": 8, **ALTERNATING},
    "olmo3": {**SLIDING, **ALTERNATING},
    "gpt_oss": {**SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
    "cohere2": {**SLIDING, **ALTERNATING},
    "cwm": {**SLIDING, **ALTERNATING, "bos_token_id": 1},
    "exaone4": {**SLIDING, **ALTERNATING},
    "gemma4_unified_text": {**SLIDING, **ALTERNATING, "global_head_dim": 16},
    "granite_swa": {**HEADS, "sliding_window": WINDOW, **ALTERNATING, "attention_multiplier": 0.3},
    "ministral": {**SLIDING, **ALTERNATING},
    "ministral3": SLIDING,
    "starcoder2": {**HEADS, "sliding_window": WINDOW},
    "vaultgemma": {**SLIDING, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0, **ALTERNATING},
}  # fmt: skip
MIXTURES_OF_EXPERTS = {
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "qwen3_moe": {**GROUPED, "num_experts": 4, "decoder_sparse_step": 1, **EXPERTS},
    "afmoe": {**SLIDING, **ALTERNATING, "num_experts": 4, "num_shared_experts": 1, **EXPERTS},
    "cohere2_moe": {**SLIDING, **ALTERNATING, "num_experts": 4, "num_shared_experts": 1, **EXPERTS},
    "dots1": {**SLIDING, **ALTERNATING, **ROUTED, **IN_GROUPS},
    "ernie4_5_moe": {**HEADS, "moe_num_experts": 4, "moe_num_shared_experts": 1, "moe_k": 2, **EXPERTS},
    "exaone_moe": {**SLIDING, **ALTERNATING, "num_experts": 4, **IN_GROUPS, **EXPERTS},
    "flex_olmo": {**HEADS, "num_experts": 4, **EXPERTS},
    "glm4_moe": {**GROUPED, **ROUTED, **IN_GROUPS},
    "granitemoe": {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2, "attention_multiplier": 0.3},
    "granitemoe_swa": {
        **HEADS,
        "sliding_window": WINDOW,
        **ALTERNATING,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "attention_multiplier": 0.3,
        "shared_intermediate_size": 16,
    },
    "granitemoeshared": {
        **HEADS,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "attention_multiplier": 0.3,
        "shared_intermediate_size": 16,
    },
    "hunyuan_v1_moe": {**GROUPED, "num_experts": 4, "moe_topk": 2},
    "hy_v3": {**GROUPED, "num_experts": 4, **EXPERTS},
    "kolibri1": {
        **SLIDING,
        **ALTERNATING,
        "num_experts": 4,
        "shared_expert_intermediate_size": 16,
        **EXPERTS,
    },
    "laguna": {
        **SLIDING,
        **ALTERNATING,
        "num_experts": 4,
        "num_attention_heads_per_layer": [4, 8] * 2,
        "shared_expert_intermediate_size": 16,
        **EXPERTS,
    },
    "mellum": {**SLIDING, **ALTERNATING, "num_experts": 4, **EXPERTS},
    "mimo_v2_flash": {**SLIDING, **ALTERNATING, **ROUTED, **IN_GROUPS, "v_head_dim": 12},
    "minimax_m2": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {**HEADS, "num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {**HEADS, "sliding_window": 128, "num_local_experts": 4},
    "qwen2_moe": {**HEADS, "num_experts": 4, "shared_expert_intermediate_size": 16, **EXPERTS},
    "sarvam_moe": {**GROUPED, **ROUTED, **IN_GROUPS},
    "solar_open": {**GROUPED, **ROUTED, **IN_GROUPS},
}
LATENT_ATTENTION = {
    "deepseek_v3": {**LATENT, **ROUTED, **IN_GROUPS},
    "axk1": {**LATENT, **ROUTED, **IN_GROUPS},
    "deepseek_v2": {**LATENT, **ROUTED, **IN_GROUPS, "topk_method": "group_limited_greedy"},
    "glm4_moe_lite": {**LATENT, **ROUTED, **IN_GROUPS},
    "minicpm3": {**LATENT, "dim_model_base": 16},
    "mistral4": {**LATENT, **ROUTED, **IN_GROUPS},
    "sarvam_mla": {**LATENT, **ROUTED, **IN_GROUPS},
    "youtu": LATENT,
}  # fmt: skip
SHARED_KEYS_AND_VALUES = {
    "gemma4_text": {
        **SLIDING, **ALTERNATING, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8,
        "global_head_dim": 8,
    },
    "gemma3n_text": {
        **SLIDING, **ALTERNATING, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8,
        "laurel_rank": 4, "vocab_size_per_layer_input": 300, "activation_sparsity_pattern": [0.0] * 4,
    },
}  # fmt: skip
TINY_VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WITH_IMAGES = {
    "gemma4": {
        "text_config": {
            **SLIDING, **ALTERNATING, "model_type": "gemma4_text", "hidden_size_per_layer_input": 0,
            "global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": True,
        },
        "vision_config": {**TINY_VISION, "num_key_value_heads": 2, "head_dim": 8},
    },
    "mistral3": {"text_config": {**GROUPED, "model_type": "ministral3"}, "vision_config": TINY_VISION},
}  # fmt: skip
DELTA_RULE = {
    "num_hidden_layers": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
}  # fmt: skip
STATE_SPACE = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16}
SHARED_EXPERT = {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16}
CONVOLUTIONS = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
HYBRIDS = {
    "qwen3_5_text": {**GROUPED, **DELTA_RULE},
    "qwen3_5": {
        "text_config": {**GROUPED, **DELTA_RULE, "model_type": "qwen3_5_text"},
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 16, "depth": 1, "num_heads": 2, "out_hidden_size": 32,
        },
    },
    "qwen3_5_moe_text": {**GROUPED, **DELTA_RULE, **SHARED_EXPERT},
    "qwen3_next": {**GROUPED, **DELTA_RULE, **SHARED_EXPERT},
    "olmo_hybrid": {**GROUPED, **DELTA_RULE, "linear_num_key_heads": 4, "linear_value_head_dim": 16},
    "granitemoehybrid": {
        **GROUPED, **STATE_SPACE, "num_local_experts": 0, "shared_intermediate_size": 64,
        "num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"],
    },
    "bamba": {**GROUPED, **STATE_SPACE, "num_hidden_layers": 3, "attn_layer_indices": [1]},
    "falcon_h1": {**GROUPED, **STATE_SPACE, "mamba_d_ssm": 64},
    "nemotron_h": {
        **GROUPED, "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2,
        "num_hidden_layers": 4, "layers_block_type": ["mamba", "attention", "mamba", "mlp"],
    },
    "kimi_linear": {
        **LATENT, "num_hidden_layers": 3, "num_experts": 4, "num_experts_per_token": 2,
        "moe_intermediate_size": 16, "linear_num_heads": 4, "linear_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "lfm2": {**GROUPED, **CONVOLUTIONS},
    "lfm2_moe": {**GROUPED, **CONVOLUTIONS, **EXPERTS, "num_experts": 4, "num_dense_layers": 1},
}  # fmt: skip
SUPPORTED: dict[str, dict[str, Any]] = {
    **FULL_ATTENTION, **WINDOWS, **MIXTURES_OF_EXPERTS, **LATENT_ATTENTION, **SHARED_KEYS_AND_VALUES,
    **WITH_IMAGES, **HYBRIDS,
}  # fmt: skip
EVERYDAY = {
    "llama", "smollm3", "qwen2", "qwen3", "phi3", "olmo2", "gpt_neox", "mistral", "gemma2", "gemma3_text",
    "olmo3", "gpt_oss", "cohere2", "mixtral", "qwen3_moe", "deepseek_v3", "gemma4_text",
    "granite", "apertus", "ernie4_5", "ernie4_5_moe", "gemma4", "mistral3",  # of presets
    "gpt2",  # positions are embeddings
    "phi",  # attention beside the feed-forward layer
    "nanochat",  # norms without weights
    "afmoe",  # a gate on attention
    "granite_swa",  # sinks and windows
    "mimo_v2_flash",  # values of another size than keys
    "laguna",  # layers with different numbers of heads
    "vaultgemma",  # soft-caps
    "minicpm3",  # latent attention without experts
    "qwen3_5_text", "granitemoehybrid", "lfm2",  # a delta rule, a state space, convolutions alone
}  # fmt: skip
"""What `make test` decodes: families of presets, and one for each mechanism. The rest is `full`."""

INDEXER = {"index_topk": 4, "index_head_dim": 8, "index_n_heads": 2}
WITH_INDEXER = {
    "axk2": {**LATENT, **ROUTED, **INDEXER},
    "deepseek_v32": {**LATENT, **ROUTED, **INDEXER},
    "deepseek_v4": {},
    "dots3_note_text": {"num_key_value_heads": 4},
    "glm_moe_dsa": {**LATENT, **ROUTED, **INDEXER},
    "hy_v4": {},
    "minimax_m3_vl_text": {"layer_types": ["full_attention", "minimax_m3_sparse"]},
    "mistral_large4_text": {},
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bloom": ({}, "ALiBi"),
    "mpt": ({}, "ALiBi"),
    "falcon": ({"alibi": True}, "ALiBi"),
    "jamba": (GROUPED, r"recurrent or convolutional layers \(linear_attention\)"),
    "mamba2": ({"num_heads": 8, "head_dim": 8, "expand": 2, "state_size": 16}, "recurrent"),
    "llama4_text": ({**GROUPED, "num_local_experts": 2, "attention_chunk_size": 8}, "chunks"),
    "gpt_neo": ({"num_layers": 2, "attention_types": [[["global"], 2]]}, "attention cannot be replaced"),
    "diffllama": (GROUPED, "logits differ"),
    "doge": (GROUPED, "a mask of their own"),
    "stablelm": (GROUPED, "does not pass keywords"),
    "nemotron": (GROUPED, "does not pass keywords"),
    "longcat_flash": ({}, "experts that pass tokens through"),
    "xglm": (
        {"num_layers": 2, "attention_heads": 4, "d_model": 32, "ffn_dim": 64},
        "attention cannot be replaced",
    ),
    "gpt_neox_japanese": ({}, "attention cannot be replaced"),
    **{kind: (extra, "a sparse indexer chooses the positions") for kind, extra in WITH_INDEXER.items()},
}
REFUSED_AFTER_LOADING = {
    "gpt_neo", "diffllama", "doge", "stablelm", "nemotron", "xglm", "gpt_neox_japanese"
}  # fmt: skip


def configuration(kind: str, extra: dict[str, Any], **changes: Any) -> Any:
    """A configuration of a family, with the vocabulary of the tiny tokenizer."""
    shape = {**SHAPE, "vocab_size": len(tokenizer())}
    if "text_config" in extra:
        return AutoConfig.for_model(kind, **{**extra, "text_config": {**shape, **extra["text_config"]}})
    return AutoConfig.for_model(kind, **{**shape, **extra, **changes})


def require(kind: str) -> None:
    """Skip the test where the installed transformers lacks a family, or the interface of its attention."""
    installed = f"transformers {transformers.__version__}"
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"{installed} has no {kind}")
    if kind == "gptj" and not hasattr(modeling_gptj, "ALL_ATTENTION_FUNCTIONS"):
        pytest.skip(f"the attention of {kind} cannot be replaced in {installed}")
