"""`torch.compile` for the models' forward passes. Compiled code is kept between starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from langchain_eft.engine.cache_folder import cache_folder
from langchain_eft.engine.models.linear import StackedLinear

_SHAPES = 256
"""Number of shapes that one model may be compiled for. torch's limit of 8 counts all models of a class."""


def compiled(module: nn.Module) -> Callable[..., Any]:
    """A module's forward pass, compiled for each shape of its inputs when that shape first occurs.

    Inductor's CUDA graphs stay off, because they copy every result; the engine records its own graphs.

    Args:
        module: The module that runs in decoding rounds.
    """
    for layer in module.modules():
        if isinstance(layer, StackedLinear) and layer.apart:  # the compiler cannot read packed weights
            layer.forward = torch.compiler.disable(layer.forward)  # type: ignore[method-assign, no-untyped-call]
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _SHAPES)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, 8 * _SHAPES)
    forward: Callable[..., Any] = torch.compile(module, dynamic=False)
    return forward
