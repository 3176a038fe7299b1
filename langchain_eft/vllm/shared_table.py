"""The table of factors that the model and the runner's hooks of one engine share."""

from __future__ import annotations

from weakref import WeakValueDictionary

import torch
from vllm.config import VllmConfig

from langchain_eft.vllm.mixtures import request_formula
from langchain_eft.vllm.section import EFTSection
from langchain_eft.vllm.table import FactorTable

_tables: WeakValueDictionary[int, FactorTable] = WeakValueDictionary()


def table_of(config: VllmConfig, device: torch.device) -> FactorTable:
    """The table of an engine; whoever asks first makes it.

    Args:
        config: The engine's configuration.
        device: Where logits are combined.
    """
    key = id(config.compilation_config)  # vLLM copies the rest of a configuration for each small model
    table = _tables.get(key)
    if table is None:
        section = EFTSection.of(config.model_config.hf_config)
        table = FactorTable(
            terms=[term for terms in section.passes.values() for term in terms],
            segments=2 * max(1, len(section.behaviors)),
            slots=config.scheduler_config.max_num_seqs,
            default=request_formula(section, None),
            device=device,
            owner=config.compilation_config,
        )
        _tables[key] = table
    return table
