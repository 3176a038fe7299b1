"""The heads of keys and values by a model's configuration. This module does not import torch."""

from __future__ import annotations

from typing import Any


def kv_heads(config: Any) -> int:
    """Heads of keys and values of a layer: the fewest where layers differ, as in Gemma 4.

    Args:
        config: The text model's configuration: transformers' object, or an object with the same fields.
    """
    layers = config.per_layer_config if getattr(config, "is_heterogeneous", False) else [config]
    return min(int(getattr(each, "num_key_value_heads", None) or each.num_attention_heads) for each in layers)
