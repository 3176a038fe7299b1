"""`torch.compile` for the models' forward passes; what it has compiled is kept between starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from langchain_eft.engine.cache_folder import cache_folder

_SHAPES = 256
"""Shapes that one model may be compiled for; torch's own bound of 8 serves all models of a class together."""


def compiled(module: nn.Module) -> Callable[..., Any]:
    """A module's forward pass, fused for each shape of its inputs when that first occurs.

    Our own recordings replace inductor's CUDA graphs, which would copy every result.

    Args:
        module: What runs in decoding rounds.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _SHAPES)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, 8 * _SHAPES)
    forward: Callable[..., Any] = torch.compile(module, dynamic=False)
    return forward
