"""Float32 weights in oneDNN's blocked layout, which makes products of few rows fast on a CPU.

With BLAS, a pass over five draft tokens takes twice the time of a pass over one, because a product of few
rows reads the weight inefficiently. In the blocked layout the weight is read once at full speed, and the pass
takes little longer than one over a single token. The result of a row is also the same bit for bit, whatever
the other rows are, so rounding depends neither on the batch nor on the draft length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_MIN_ROWS = 4
"""Fewer rows are padded: oneDNN's kernel for them is slower and rounds differently."""

_EXPECTED_ROWS = 8
"""Number of rows for which oneDNN chooses the layout."""

_packed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def prepackable(weight: Tensor) -> bool:
    """Whether a weight is float32 on a CPU and torch has oneDNN (as it has on x86 and in most Arm builds)."""
    return (
        # Quantized weights have other tensor classes.
        type(weight) in {Tensor, nn.Parameter}
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def prepack(weight: Tensor) -> Tensor:
    """A weight in blocked layout. All calls with the same weight return the same copy.

    Args:
        weight: [out, in] float32.

    Returns:
        [out, in], readable only by `prepacked_product`.
    """
    if weight not in _packed:
        _packed[weight] = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _EXPECTED_ROWS)
    blocked: Tensor = _packed[weight]
    return blocked


def prepacked_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`.

    Args:
        x: [N, in] float32.
        weight: [out, in], returned by `prepack`.
        bias: [out] or [N, out], or None.

    Returns:
        [N, out].
    """
    rows, row_bias = x.shape[0], None
    if bias is not None and bias.dim() == 2:
        bias, row_bias = None, bias
    if rows < _MIN_ROWS:
        x = F.pad(x, (0, 0, 0, _MIN_ROWS - rows))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y[:rows] if row_bias is None else y[:rows] + row_bias
