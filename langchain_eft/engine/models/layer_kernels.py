"""Who computes the small operations of a decoder layer, which `layer_ops` defines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from langchain_eft.engine.models import layer_ops as plain


class LayerOps(NamedTuple):
    """The small operations of a decoder layer, by the names of `layer_ops`, which defines them."""

    rms_norm: Callable[..., Tensor]
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
    angles: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    rotate: Callable[..., None]
    silu_mul: Callable[[Tensor], Tensor]


def layer_ops(*, kernels: bool) -> LayerOps:
    """The operations as kernels for a GPU, or as they are defined."""
    if not kernels:
        return LayerOps(plain.rms_norm, plain.add_rms_norm, plain.angles, plain.rotate, plain.silu_mul)
    from langchain_eft.engine.models.triton import (
        add_rms_norm_kernel,
        kernel_angles,
        rms_norm_kernel,
        rotate_kernel,
        silu_mul_kernel,
    )

    return LayerOps(rms_norm_kernel, add_rms_norm_kernel, kernel_angles, rotate_kernel, silu_mul_kernel)
