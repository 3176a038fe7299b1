"""The small operations of a decoder layer: Triton kernels, or the torch functions that define them.

The kernels must equal the torch functions; they take fewer launches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class LayerOps(NamedTuple):
    """The small operations of a decoder layer.

    Attributes:
        rms_norm: See `rms_norm`.
        add_rms_norm: See `add_rms_norm`.
        rotate: See `rotate`.
        silu_mul: See `silu_mul`.
    """

    rms_norm: Callable[..., Tensor]
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
    rotate: Callable[..., None]
    silu_mul: Callable[[Tensor], Tensor]


def layer_ops(*, kernels: bool) -> LayerOps:
    """The operations as kernels, or as torch functions."""
    if not kernels:
        return LayerOps(rms_norm, add_rms_norm, rotate, silu_mul)
    from langchain_eft.engine.models.triton import (
        add_rms_norm_kernel,
        rms_norm_kernel,
        rotate_kernel,
        silu_mul_kernel,
    )

    return LayerOps(rms_norm_kernel, add_rms_norm_kernel, rotate_kernel, silu_mul_kernel)


def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
    """`residual + norm(x) * weight` (Zhang and Sennrich 2019).

    Args:
        x: [N, hidden].
        weight: [hidden].
        eps: Added to the mean square.
        residual: [N, hidden], or None to add nothing.

    Returns:
        [N, hidden].
    """
    root, least = _norm_constants(x.shape[-1], eps, x.dtype, x.device)
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # fewer operations than `F.rms_norm`
    normed = (x * length.mul_(length).add_(least).rsqrt_().mul_(root)).mul_(weight)
    return normed if residual is None else normed.add_(residual)


@cache
@torch.inference_mode(mode=False)  # the constants have to be ordinary tensors
def _norm_constants(size: int, eps: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """sqrt(n) and n * eps as tensors, which torch would make of numbers at every norm."""
    constants = torch.tensor([size**0.5, size * eps], dtype=dtype, device=device)
    return constants[0], constants[1]


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x + residual`, and its norm times `weight`. The arguments are those of `rms_norm`."""
    total = x + residual
    return total, rms_norm(total, weight, eps)


def rotate(
    states: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    heads: int,
    key_heads: int,
    query_weight: Tensor | None = None,
    key_weight: Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """Rotate the queries and keys of packed tokens in place, after a norm of each head if weights are given.

    Args:
        states: [N, (heads + key_heads + ...) * dim] queries, keys and other states, contiguous.
        cos: [N, dim]; the halves of `cos` are equal, and so are those of `sin`.
        sin: [N, dim].
        heads: Number of query heads.
        key_heads: Number of key heads.
        query_weight: [dim] weight of the queries' norm, or None.
        key_weight: [dim] weight of the keys' norm, or None.
        eps: Added to the mean square of each head.
    """
    dim = cos.shape[-1]
    rotated = states.view(len(states), -1, dim)[:, : heads + key_heads]
    if query_weight is not None and key_weight is not None:
        query, key = rotated[:, :heads], rotated[:, heads:]
        query.copy_(rms_norm(query, query_weight, eps))
        key.copy_(rms_norm(key, key_weight, eps))
    first, second = rotated.chunk(2, -1)
    turned = torch.cat((-second, first), -1).mul_(sin[:, None])
    rotated.mul_(cos[:, None]).add_(turned)


def silu_mul(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`: [N, 2 * size] to [N, size] (Shazeer 2020)."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)
