"""The folder that keeps converted weights and compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "LANGCHAIN_EFT_CACHE"


def cache_folder() -> Path:
    """Where converted weights are kept; set LANGCHAIN_EFT_CACHE to move it."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("langchain-eft"))
