"""Emulated fine-tuning inside vLLM: a plugin, and the folders that it serves.

`langchain-eft export` writes a recipe as a folder that stock `vllm serve` starts. The plugin gives each
request a mixture of its own: `vllm_xargs={"mixture": "pirate=0.5,concise=1"}`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from langchain_eft.vllm.interfaces import missing_interfaces
from langchain_eft.vllm.section import ARCHITECTURE

RUN = "0.32"
"""The release series of vLLM in which the plugin has run."""

logger = logging.getLogger(__name__)


def register() -> None:
    """Tell vLLM about our architecture. It does nothing to other models.

    vLLM calls this in each of its processes, by the entry point of the group `vllm.general_plugins`; the
    variable VLLM_PLUGINS chooses among plugins.
    """
    import vllm

    if missing := missing_interfaces(Path(vllm.__file__).parent):
        logger.warning(
            "vLLM %s cannot serve %s, for it lacks %s, which the plugin uses: install vLLM %s.",
            vllm.__version__,
            ARCHITECTURE,
            ", ".join(missing),
            RUN,
        )
        return
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from langchain_eft.vllm.settings import EFTSettings

    if ARCHITECTURE not in vllm.ModelRegistry.get_supported_archs():
        vllm.ModelRegistry.register_model(ARCHITECTURE, "langchain_eft.vllm.model:EFTForCausalLM")
    MODELS_CONFIG_MAP[ARCHITECTURE] = EFTSettings
