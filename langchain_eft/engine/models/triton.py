"""Triton kernels for the small operations of a decoder layer: norm with residual, rotation, gated unit.

When one token is decoded, a kernel launch costs more than its memory traffic, and torch needs about six
launches for each of these operations. All kernels compute in float32 and round once.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from langchain_eft.engine.dependent_launch import dependent_launch, wait_for_previous


def rms_norm_kernel(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
    """Must equal `layer_ops.rms_norm`, in one launch. The last axis of `x` is contiguous."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch_norm(x, weight, eps, None, residual, None, out)
    return out


def add_rms_norm_kernel(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Must equal `layer_ops.add_rms_norm`, in one launch. The last axis of `x` is contiguous."""
    out, total = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    _launch_norm(x, weight, eps, residual, None, total, out)
    return total, out


def _launch_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    before: Tensor | None,
    after: Tensor | None,
    total: Tensor | None,
    out: Tensor,
) -> None:
    block = triton.next_power_of_2(x.shape[1])
    _norm[x.shape[0],](
        x,
        weight,
        before,
        after,
        total,
        out,
        eps,
        x.stride(0),
        size=x.shape[1],
        block=block,
        num_warps=max(1, min(16, block // 256)),
        **dependent_launch(x.device),
    )


@triton.jit(do_not_specialize=["x_stride"])  # type: ignore[untyped-decorator, unused-ignore]
def _norm(
    x: tl.tensor,
    weight: tl.tensor,
    before: tl.tensor,
    after: tl.tensor,
    total: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    x_stride: tl.tensor,
    size: tl.constexpr,
    block: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """One token: `before` is added before the norm and the sum goes to `total`; `after` is added after it."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < size
    offsets = row * size + at
    # No kernel writes weights, so they are read before the wait.
    scale = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    wait_for_previous(dependent)
    h = tl.load(x + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
    if before is not None:
        h += tl.load(before + offsets, mask=inside, other=0.0).to(tl.float32)
        rounded = h.to(out.dtype.element_ty)
        tl.store(total + offsets, rounded, mask=inside)
        h = rounded.to(tl.float32)
    h *= tl.rsqrt(tl.sum(h * h, 0) / size + eps)
    h *= scale
    if after is not None:
        h += tl.load(after + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + offsets, h, mask=inside)


def kernel_angles(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """What `rotate_kernel` takes: [N, dim] from [1, N, dim]."""
    return cos[0], sin[0]


def rotate_kernel(
    states: Tensor,
    factors: tuple[Tensor, Tensor],
    *,
    heads: int,
    key_heads: int,
    query_weight: Tensor | None = None,
    key_weight: Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """Must equal `layer_ops.rotate`, in one launch. The factors are `kernel_angles`."""
    cos, sin = factors
    dim = cos.shape[-1]
    half = dim // 2
    _rotate[states.shape[0], heads + key_heads](
        states,
        cos,
        sin,
        query_weight,
        key_weight,
        eps,
        states.stride(0),
        cos.stride(0),
        heads=heads,
        half=half,
        block=triton.next_power_of_2(half),
        num_warps=1,
        **dependent_launch(states.device),
    )


@triton.jit(do_not_specialize=["states_stride", "cos_stride"])  # type: ignore[untyped-decorator, unused-ignore]
def _rotate(
    states: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    query_weight: tl.tensor,
    key_weight: tl.tensor,
    eps: tl.tensor,
    states_stride: tl.tensor,
    cos_stride: tl.tensor,
    heads: tl.constexpr,
    half: tl.constexpr,
    block: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """One token and head: (a, b) becomes (a cos - b sin, b cos + a sin)."""
    wait_for_previous(dependent)
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, block)
    inside = at < half
    address = states + token * states_stride + head * 2 * half + at
    a = tl.load(address, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(address + half, mask=inside, other=0.0).to(tl.float32)
    if query_weight is not None:
        weight = query_weight if head < heads else key_weight
        scale = tl.rsqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / (2 * half) + eps)
        a *= scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
        b *= scale * tl.load(weight + half + at, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + token * cos_stride + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + token * cos_stride + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(address, a * c - b * s, mask=inside)
    tl.store(address + half, b * c + a * s, mask=inside)


_GATED = 1024
"""Number of outputs of the gated unit that one program computes."""


def silu_mul_kernel(gate_up: Tensor) -> Tensor:
    """Must equal `layer_ops.silu_mul`, in one launch. `gate_up` is contiguous."""
    tokens, width = gate_up.shape
    out = torch.empty(tokens, width // 2, dtype=gate_up.dtype, device=gate_up.device)
    _silu_mul[tokens, triton.cdiv(width // 2, _GATED)](
        gate_up,
        out,
        size=width // 2,
        block=_GATED,
        **dependent_launch(gate_up.device),
    )
    return out


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _silu_mul(
    gate_up: tl.tensor, out: tl.tensor, size: tl.constexpr, block: tl.constexpr, dependent: tl.constexpr
) -> None:
    wait_for_previous(dependent)
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < size
    gate = tl.load(gate_up + row * 2 * size + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * size + size + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + at, gate * tl.sigmoid(gate) * up, mask=inside)
