"""Emulated fine-tuning inside vLLM: a plugin, and the folders that it serves.

`langchain-eft export` writes a recipe as a folder that stock `vllm serve` starts. The plugin gives each
request a mixture of its own: `vllm_xargs={"mixture": "pirate=0.5,concise=1"}`.
"""

from __future__ import annotations

import logging

from langchain_eft.vllm.section import ARCHITECTURE

TESTED = ((0, 32), (0, 33))
"""The first tested release series of vLLM, and the first that was never tried."""

logger = logging.getLogger(__name__)


def register() -> None:
    """Tell vLLM about our architecture. It does nothing to other models.

    vLLM calls this in each of its processes, by the entry point of the group `vllm.general_plugins`; the
    variable VLLM_PLUGINS chooses among plugins.
    """
    import vllm

    series = tuple(int(part) for part in vllm.__version__.split(".")[:2])
    if not TESTED[0] <= series < TESTED[1]:
        first, end = (".".join(map(str, version)) for version in TESTED)
        logger.warning(
            "langchain-eft serves %s with vLLM >= %s and < %s, and this is %s: install one of those.",
            ARCHITECTURE,
            first,
            end,
            vllm.__version__,
        )
        return
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from langchain_eft.vllm.settings import EFTSettings

    if ARCHITECTURE not in vllm.ModelRegistry.get_supported_archs():
        vllm.ModelRegistry.register_model(ARCHITECTURE, "langchain_eft.vllm.model:EFTForCausalLM")
    MODELS_CONFIG_MAP[ARCHITECTURE] = EFTSettings
