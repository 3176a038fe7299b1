"""The small operations of a decoder layer by kernels for CPUs. They must equal `layer_ops`.

A row's numbers depend on no other row. Tensors that are not float32, and rows that are no whole vectors, take
the torch functions.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.kernels.store import Kernel, kernel
from langchain_eft.engine.kernels.target import LANES
from langchain_eft.engine.models import layer_ops as plain


class _Kernels(NamedTuple):
    norm: Kernel
    rotate: Kernel
    silu_mul: Kernel


@cache
def compiled() -> _Kernels:
    """The kernels. This machine compiles them the first time."""
    arguments = {"norm": 10, "rotate": 11, "silu_mul": 4}
    room = "langchain_eft.engine.kernels.layer"
    return _Kernels(**{name: kernel(room, name, count) for name, count in arguments.items()})


def cpu_rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
    """See `layer_ops.rms_norm`."""
    if not _fits(x, weight):
        return plain.rms_norm(x, weight, eps, residual)
    out, residual = torch.empty(x.shape), None if residual is None else residual.contiguous()
    after = 0 if residual is None else residual.data_ptr()
    compiled().norm(
        x.data_ptr(), x.stride(0) * 4, 0, 0, weight.data_ptr(), after, out.data_ptr(), *x.shape, _at(eps)
    )
    return out


def cpu_add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `layer_ops.add_rms_norm`."""
    if not (_fits(x, weight) and residual.is_contiguous()):
        return plain.add_rms_norm(x, residual, weight, eps)
    total, out = torch.empty(2, *x.shape)
    compiled().norm(
        x.data_ptr(), x.stride(0) * 4, residual.data_ptr(), total.data_ptr(), weight.data_ptr(), 0,
        out.data_ptr(), *x.shape, _at(eps),
    )  # fmt: skip
    return total, out


def cpu_rotate(
    states: Tensor,
    factors: tuple[Tensor, Tensor],
    *,
    heads: int,
    key_heads: int,
    query_weight: Tensor | None = None,
    key_weight: Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """See `layer_ops.rotate`."""
    cos, sin = factors
    if not (_fits(states, *factors) and cos.shape[-1] % (2 * LANES) == 0):
        return plain.rotate(
            states, factors, heads=heads, key_heads=key_heads, query_weight=query_weight,
            key_weight=key_weight, eps=eps,
        )  # fmt: skip
    weights = (0 if weight is None else weight.data_ptr() for weight in (query_weight, key_weight))
    compiled().rotate(
        states.data_ptr(), states.stride(0) * 4, cos.data_ptr(), sin.data_ptr(), len(states), heads,
        key_heads, cos.shape[-1], *weights, _at(eps),
    )  # fmt: skip
    return None


def cpu_silu_mul(gate_up: Tensor) -> Tensor:
    """See `layer_ops.silu_mul`."""
    if not (_fits(gate_up) and gate_up.is_contiguous() and gate_up.shape[1] % (2 * LANES) == 0):
        return plain.silu_mul(gate_up)
    out = torch.empty(len(gate_up), gate_up.shape[1] // 2)
    compiled().silu_mul(gate_up.data_ptr(), out.data_ptr(), *out.shape)
    return out


def cpu_angles(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """See `layer_ops.angles`; contiguous."""
    first, second = plain.angles(cos, sin)
    return first.contiguous(), second.contiguous()


def _fits(x: Tensor, *others: Tensor) -> bool:
    """Whether kernels can read the rows of tensors, in whole vectors."""
    return (
        x.is_cpu
        and x.shape[-1] % LANES == 0
        and x.stride(-1) == 1
        and all(each.dtype is torch.float32 for each in (x, *others))
        and not torch.compiler.is_compiling()
    )


def _at(number: float) -> int:
    """The address of a float32."""
    return _stored(number).data_ptr()


@cache
def _stored(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float32)
