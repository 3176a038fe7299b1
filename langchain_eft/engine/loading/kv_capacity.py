"""The KV memory of an engine: how many blocks, and their allocation."""

from __future__ import annotations

from collections import Counter

import torch

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.limits import LONGEST_DRAFT
from langchain_eft.engine.loading.memory import free_memory, gib
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.recurrence.state_pool import StatePool

_MOST_KEPT_STATES = 16
"""Most recurrent states of prefixes that are kept."""

_CUDA_WORKSPACE = 2 * 2**30
"""Bytes for what cannot be calculated: recordings, activations, and the workspaces of CUDA's libraries."""


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
    states = _state_bytes(family, config)
    for model in family.models:
        for device, size in model.bytes_per_token.items():
            per_token[device] += model.variants * size
    aside = 0 if num_tokens else workspace(family, config.max_batch_size)
    free = {
        device: free_memory(device) - states[device] - (aside if device.type == "cuda" else 0)
        for device in per_token
    }
    if num_tokens is None:
        usable = config.max_batch_size * max_model_len
        fitting = min(
            int(free[device] * config.kv_cache_fraction) // size for device, size in per_token.items()
        )
        num_tokens = max(min(fitting, usable), config.block_size)
    for device, size in per_token.items():
        if num_tokens * size > free[device]:
            kept = f" and keeping {gib(aside)} for rounds" if aside and device.type == "cuda" else ""
            raise InsufficientMemoryError(
                f"Keys and values of {num_tokens} tokens take {gib(num_tokens * size)}, but only "
                f"{gib(max(free[device], 0))} are free on {device} after loading "
                f"{gib(family.weight_bytes)} of weights{kept}: lower `kv_cache_tokens` or `max_batch_size`, "
                "or use a smaller model or dtype."
            )
    return -(-num_tokens // config.block_size)


def state_slots(config: EngineConfig, num_prompts: int) -> int:
    """Slots of recurrent state: for each prompt of each request, and for prefixes that are kept."""
    return config.max_batch_size * num_prompts + min(config.max_batch_size, _MOST_KEPT_STATES)


def allocate_states(family: ModelFamily, config: EngineConfig) -> list[StatePool | None]:
    """The recurrent states of each model that has such.

    Raises:
        InsufficientMemoryError: A device has not so much memory.
    """
    count = state_slots(config, len(family.prompt_names))
    pools = [StatePool(count, model.variants) if model.states else None for model in family.models]
    try:
        for pool, model in zip(pools, family.models, strict=True):
            if pool is not None and model.states is not None:
                pool.allocate(model.states)
    except (torch.OutOfMemoryError, MemoryError) as error:
        for pool in pools:
            if pool is not None:
                pool.free()
        raise InsufficientMemoryError(
            f"There is no memory for the recurrent states of {count} texts ({error}): lower "
            "`max_batch_size`, or use a smaller model."
        ) from error
    return pools


def _state_bytes(family: ModelFamily, config: EngineConfig) -> Counter[torch.device]:
    """Bytes of all recurrent states, by device."""
    total: Counter[torch.device] = Counter()
    for model in family.models:
        for device, size in (model.states.bytes_per_slot if model.states else {}).items():
            total[device] += size * (state_slots(config, len(family.prompt_names)) * model.variants + 1)
    return total


def workspace(family: ModelFamily, max_batch_size: int) -> int:
    """Bytes of a GPU that the largest round needs beside weights, keys and values."""
    terms = {family.base, *(term for pair in family.behaviors.values() for term in pair)}
    logits = max_batch_size * (LONGEST_DRAFT + 1) * len(family.vocabulary)
    # Each term's logits exist twice while they are gathered, in float32. p and q are sums in float32 and
    # probabilities in float64. Before that, up-scaling of some tokens normalizes all logits, and makes five
    # sums.
    distributions, upscaling = 2 * (4 + 8), 4 * len(terms) + 5 * 4
    return _CUDA_WORKSPACE + logits * (2 * 4 * len(terms) + max(distributions, upscaling))


def allocate_pools(family: ModelFamily, num_tokens: int) -> list[KVPool]:
    """The KV memory of each model. It is taken at once, so that requests cannot run out of it.

    Raises:
        InsufficientMemoryError: A device has not so much memory.
    """
    pools = [KVPool(model.variants * num_tokens) for model in family.models]
    try:
        for pool, model in zip(pools, family.models, strict=True):
            pool.allocate(model.kv_layers)
    except (torch.OutOfMemoryError, MemoryError) as error:
        for pool in pools:  # the error may outlive them, and refers to them
            pool.free()
        raise InsufficientMemoryError(
            f"There is no memory for the keys and values of {num_tokens} tokens ({error}): lower "
            "`kv_cache_tokens` or `kv_cache_fraction`, or use a smaller model or dtype."
        ) from error
    return pools
