"""A plain forward pass in float32 over weights of 16 bits, without a float32 copy of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

_HALF = (torch.bfloat16, torch.float16)


class InFloat32(TorchFunctionMode):
    """Compute in float32 whatever takes tensors of 16 bits: each operation converts its own arguments."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.dtype.__get__:  # type: ignore[attr-defined]
            return torch.float32 if func(*args) in _HALF else func(*args)
        if getattr(func, "__name__", "") == "__get__":  # shape, device and so on
            return func(*args)
        return func(*tree_map(_upcast, tuple(args)), **tree_map(_upcast, dict(kwargs or {})))


def _upcast(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in _HALF:
        return value.float()
    return value
