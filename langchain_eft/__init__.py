"""Emulated fine-tuning for LangChain: a large model's knowledge with small models' behaviors.

Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_eft.chat_models import ChatEFT, EFTChatModel
    from langchain_eft.decisions.model import EFTDecisionModel
    from langchain_eft.engine.config import EngineConfig
    from langchain_eft.engine.recipe.behaviors import BehaviorDelta, Recipe
    from langchain_eft.engine.recipe.gate import Gate
    from langchain_eft.engine.recipe.mixture import Mixture
    from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
    from langchain_eft.llms import EFTLLM
    from langchain_eft.middleware import MixtureMiddleware
    from langchain_eft.rewards import EFTRewardScorer
    from langchain_eft.trace.trace import EFTTrace

# MKL, which torch multiplies by on x86, then adds up a row in one way in every batch. It reads this once, at
# its first product.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Threads of torch's own operations then sleep between two of them. Else they look for work for milliseconds,
# on cores that our kernels or other programs need. OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_MODULE_OF = {
    "BehaviorDelta": "langchain_eft.engine.recipe.behaviors",
    "ChatEFT": "langchain_eft.chat_models",
    "EFTChatModel": "langchain_eft.chat_models",
    "EFTDecisionModel": "langchain_eft.decisions.model",
    "EFTLLM": "langchain_eft.llms",
    "EFTRewardScorer": "langchain_eft.rewards",
    "EFTTrace": "langchain_eft.trace.trace",
    "EngineConfig": "langchain_eft.engine.config",
    "FirstTokens": "langchain_eft.engine.recipe.schedules",
    "Gate": "langchain_eft.engine.recipe.gate",
    "Mixture": "langchain_eft.engine.recipe.mixture",
    "MixtureMiddleware": "langchain_eft.middleware",
    "Ramp": "langchain_eft.engine.recipe.schedules",
    "Recipe": "langchain_eft.engine.recipe.behaviors",
}

__all__ = [
    "EFTLLM",
    "BehaviorDelta",
    "ChatEFT",
    "EFTChatModel",
    "EFTDecisionModel",
    "EFTRewardScorer",
    "EFTTrace",
    "EngineConfig",
    "FirstTokens",
    "Gate",
    "Mixture",
    "MixtureMiddleware",
    "Ramp",
    "Recipe",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
