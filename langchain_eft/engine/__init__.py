"""A decoding engine for emulated fine-tuning. It needs no LangChain, and imports nothing outside this folder.

Names are imported on first use, so that importing the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_eft.engine.config import EngineConfig
    from langchain_eft.engine.engine import Engine
    from langchain_eft.engine.registry import open_engine
    from langchain_eft.engine.request import GenerationRequest, SamplingParams

_MODULE_OF = {
    "Engine": "langchain_eft.engine.engine",
    "EngineConfig": "langchain_eft.engine.config",
    "GenerationRequest": "langchain_eft.engine.request",
    "SamplingParams": "langchain_eft.engine.request",
    "open_engine": "langchain_eft.engine.registry",
}

__all__ = ["Engine", "EngineConfig", "GenerationRequest", "SamplingParams", "open_engine"]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
