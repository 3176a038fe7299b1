"""The small operations of a decoder layer.

On a GPU their kernels take fewer launches. On a CPU, steps of programs (`kernels/layer.py`) take less time.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from langchain_eft.engine.device_kernels import with_kernel


@with_kernel("models.triton:rms_norm_kernel")
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
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # fewer operations than `F.rms_norm`
    mean_square = torch.addcmul(_as_tensor(eps, x.dtype, x.device), length, length, value=1 / x.shape[-1])
    normed = (x * mean_square.rsqrt_()).mul_(weight)
    return normed if residual is None else normed.add_(residual)


@cache
@torch.inference_mode(mode=False)  # the constant has to be an ordinary tensor
def _as_tensor(number: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(number, dtype=dtype, device=device)


@with_kernel("models.triton:add_rms_norm_kernel")
def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x + residual`, and its norm times `weight`. The arguments are those of `rms_norm`."""
    total = x + residual
    return total, rms_norm.definition(total, weight, eps)


@with_kernel("models.triton:kernel_angles")
def angles(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """What `rotate` takes, which all layers share.

    Args:
        cos: [1, N, dim]; the halves of `cos` are equal, and so are those of `sin`.
        sin: [1, N, dim].

    Returns:
        Factors of the states and of their exchanged halves, [N, 1, dim].
    """
    first, second = sin.transpose(0, 1).chunk(2, -1)
    return cos.transpose(0, 1), torch.cat((-first, second), -1)


@with_kernel("models.triton:rotate_kernel")
def rotate(
    states: Tensor,
    factors: tuple[Tensor, Tensor],
    *,
    heads: int,
    key_heads: int,
    query_weight: Tensor | None = None,
    key_weight: Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """Rotate the queries and keys of packed tokens in place (Su et al. 2021).

    If weights are given, a norm of each head comes first.

    Args:
        states: [N, (heads + key_heads + ...) * dim] queries, keys and other states, contiguous.
        factors: `angles` of the tokens' positions.
        heads: Number of query heads.
        key_heads: Number of key heads.
        query_weight: [dim] weight of the queries' norm, or None.
        key_weight: [dim] weight of the keys' norm, or None.
        eps: Added to the mean square of each head.
    """
    cos, sin = factors
    dim = cos.shape[-1]
    rotated = states.view(len(states), -1, dim).narrow(1, 0, heads + key_heads)
    if query_weight is not None and key_weight is not None:
        query, key = rotated[:, :heads], rotated[:, heads:]
        query.copy_(rms_norm.definition(query, query_weight, eps))
        key.copy_(rms_norm.definition(key, key_weight, eps))
    exchanged = rotated.roll(dim // 2, -1)
    rotated.mul_(cos).addcmul_(exchanged, sin)


@with_kernel("models.triton:silu_mul_kernel")
def silu_mul(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`: [N, 2 * size] to [N, size] (Shazeer 2020)."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)
