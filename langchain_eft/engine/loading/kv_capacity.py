"""The number of KV memory blocks of an engine."""

from __future__ import annotations

from collections import Counter

import torch

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.loading.memory import free_memory, gib
from langchain_eft.engine.models.family import ModelFamily


def count_blocks(family: ModelFamily, config: EngineConfig, max_model_len: int) -> int:
    """Number of blocks for the configured number of tokens or fraction of the free memory.

    Args:
        family: The loaded models.
        config: The number of tokens, or the fraction of the free memory.
        max_model_len: Tokens of the longest request. The fraction is limited to what the largest batch of
            such requests can use.

    Raises:
        InsufficientMemoryError: The tokens do not fit the free memory of a device.
    """
    num_tokens = config.kv_cache_tokens
    per_token: Counter[torch.device] = Counter()
    for model in family.models:
        for device, size in model.bytes_per_token.items():
            per_token[device] += model.variants * size
    free = {device: free_memory(device) for device in per_token}
    if num_tokens is None:
        usable = config.max_batch_size * max_model_len
        fitting = min(
            int(free[device] * config.kv_cache_fraction) // size for device, size in per_token.items()
        )
        num_tokens = max(min(fitting, usable), config.block_size)
    for device, size in per_token.items():
        if num_tokens * size > free[device]:
            raise InsufficientMemoryError(
                f"Keys and values of {num_tokens} tokens take {gib(num_tokens * size)}, but only "
                f"{gib(free[device])} are free on {device} after loading {gib(family.weight_bytes)} of "
                "weights: lower `kv_cache_tokens`, or use a smaller model or dtype."
            )
    return -(-num_tokens // config.block_size)
