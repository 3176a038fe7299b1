"""Weights in oneDNN's blocked layout: a float32 pass over several tokens takes a CPU little longer than one.

Verifying five tokens with BLAS takes twice the time of one, since a product of few rows reads the weight
badly; in blocks, it is read once at full speed. A row's result is also the same, bit for bit, whatever rows
stand beside it, so that rounding depends on neither the batch nor the draft length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_LEAST_ROWS = 4
"""Fewer rows take another kernel, which is slower and rounds differently."""

_TUNED_FOR = 8
"""Rows for which oneDNN chooses the blocks."""

_packed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def prepackable(weight: Tensor) -> bool:
    """Whether a weight is float32 on a CPU, with oneDNN at hand (torch has it on x86 and most Arm builds)."""
    return (
        # Quantized weights are tensors of a class of their own.
        type(weight) in {Tensor, nn.Parameter}
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def prepack(weight: Tensor) -> Tensor:
    """A weight in blocked layout; every caller with the same weight gets the same copy.

    Args:
        weight: [out, in] float32.

    Returns:
        [out, in], opaque to everything but `prepacked_product`.
    """
    if weight not in _packed:
        _packed[weight] = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _TUNED_FOR)
    blocked: Tensor = _packed[weight]
    return blocked


def prepacked_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`.

    Args:
        x: [N, in] float32.
        weight: [out, in] of `prepack`.
        bias: [out] or [N, out], or None.

    Returns:
        [N, out].
    """
    rows, added = x.shape[0], None
    if bias is not None and bias.dim() == 2:
        bias, added = None, bias
    if rows < _LEAST_ROWS:
        x = F.pad(x, (0, 0, 0, _LEAST_ROWS - rows))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y[:rows] if added is None else y[:rows] + added
