"""Embeddings in half precision, whose vectors are float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def halve_embeddings(layers: Sequence[nn.Embedding]) -> None:
    """Keep the matrix that embedding layers share in 16 bits, in place, unless that would change a value.

    It becomes a buffer, because transformers takes the type of the first parameter for that of activations.
    """
    matrix = _half(layers[0].weight.detach())
    if matrix is None or any(layer.max_norm is not None for layer in layers):
        return
    for layer in layers:
        del layer.weight
        layer.register_buffer("weight", matrix)
        layer.register_forward_hook(_in_float32)


def _half(matrix: Tensor) -> Tensor | None:
    for dtype in (torch.bfloat16, torch.float16):
        half = matrix.to(dtype, copy=True)  # the original may be mapped into memory with its whole file
        if matrix.dtype == dtype or torch.equal(half.float(), matrix.float()):
            return half
    return None


def _in_float32(layer: nn.Module, args: Any, vectors: Tensor) -> Tensor:  # noqa: ARG001  (a hook's arguments)
    return vectors.float()
