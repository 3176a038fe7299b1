"""The folder that keeps converted weights and compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "LANGCHAIN_EFT_CACHE"


def cache_folder() -> Path:
    """The folder LANGCHAIN_EFT_CACHE, or `langchain-eft` in the user's cache folder."""
    configured = os.environ.get(CACHE_VARIABLE)
    return Path(configured) if configured else Path(platformdirs.user_cache_dir("langchain-eft"))
