"""The context window of a model by its configuration. This module does not import torch."""

from __future__ import annotations

from typing import Any


def context_window(config: Any) -> int:
    """Number of positions up to which a row's rotary frequencies do not depend on the other rows of a batch.

    LongRoPE and dynamic NTK scaling choose frequencies by the longest text of a batch. Beyond the original
    window, a long text would change the results of the other rows, so such models are limited to the original
    window.

    Args:
        config: The text model's configuration: transformers' object, or an object with the fields of the
            configuration file, which may have the older names `rope_scaling` and `type`.
    """
    window = getattr(config, "max_position_embeddings", None) or 2**20
    original = getattr(config, "original_max_position_embeddings", None) or window
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = rope.values() if all(isinstance(kind, dict) for kind in rope.values()) else [rope]
    originals = [
        kind.get("original_max_position_embeddings") or original
        for kind in kinds
        if kind and kind.get("rope_type", kind.get("type")) in ("longrope", "dynamic")
    ]
    return int(min([window, *originals]))
