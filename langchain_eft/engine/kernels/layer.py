"""The small operations of a decoder layer as steps of programs. `models/layer_ops.py` defines them.

Tensors are [N, size] float32, with the numbers of a row side by side. N is the number of rows of an extent.
"""

from __future__ import annotations

import ctypes

from torch import Tensor

from langchain_eft.engine.kernels.program import Extent, Program, Work
from langchain_eft.engine.kernels.store import kernel


class Arguments(Work):
    """What the kernels read: addresses, steps from row to row in bytes, and sizes. What there is not is 0.

    Attributes:
        x: Address of the rows.
        y: Address of the results.
        total: Address of the sums that a norm adds to.
        after: Address of what is added to a norm.
        weight: Address of a norm's weight, that of the queries for `rotate`.
        key_weight: Address of the weight of the keys' norm.
        cos: Address of the factors of the states.
        sin: Address of the factors of their exchanged halves.
        index: Address of the numbers of rows, int64.
        size: Numbers of a row, or of a head.
        heads: Query heads.
        key_heads: Key heads.
        eps: Added to mean squares.
    """

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "x", "x_step", "y", "y_step", "total", "total_step", "after", "after_step", "weight",
                "key_weight", "cos", "cos_step", "sin", "sin_step", "index", "size", "heads", "key_heads",
            )
        ),
        ("eps", ctypes.c_float),
    )  # fmt: skip


def add_norm(
    program: Program,
    x: Tensor,
    weight: Tensor,
    eps: float,
    out: Tensor,
    extent: Extent,
    *,
    total: Tensor | None = None,
    after: Tensor | None = None,
) -> None:
    """Add `out = norm(x) * weight + after`. With a `total`, this becomes `total + x`, whose norm is taken.

    `out` may be `x` or `after`.
    """
    rows = {**_rows("x", x), **_rows("y", out), **_rows("total", total), **_rows("after", after)}
    arguments = Arguments(**rows, weight=_at(weight), size=x.shape[1], eps=eps)
    _add(program, "norm", arguments, extent, x, out, total, after, weight)


def add_rotation(
    program: Program,
    states: Tensor,
    cos: Tensor,
    sin: Tensor,
    extent: Extent,
    *,
    heads: int,
    key_heads: int,
    query_weight: Tensor | None = None,
    key_weight: Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """Add the rotation of the queries and keys of each row, in place, behind a norm of each head.

    `cos` and `sin` are factors of the states and of their exchanged halves, [N, dim].
    """
    rows = {**_rows("x", states), **_rows("cos", cos), **_rows("sin", sin)}
    weights = {"weight": _at(query_weight), "key_weight": _at(key_weight)}
    sizes = {"heads": heads, "key_heads": key_heads, "size": cos.shape[1]}
    arguments = Arguments(**rows, **weights, **sizes, eps=eps)
    _add(program, "rotate", arguments, extent, states, cos, sin, query_weight, key_weight)


def add_silu_mul(program: Program, gate_up: Tensor, out: Tensor, extent: Extent) -> None:
    """Add `out = silu(gate) * up`, for rows of all gates and then all of `up`."""
    arguments = Arguments(**_rows("x", gate_up), **_rows("y", out), size=out.shape[1])
    _add(program, "silu_mul", arguments, extent, gate_up, out)


def add_take(program: Program, x: Tensor, index: Tensor, out: Tensor, extent: Extent) -> None:
    """Add `out = x[index]`, for an int64 index."""
    arguments = Arguments(**_rows("x", x), **_rows("y", out), index=_at(index), size=x.shape[1])
    _add(program, "take", arguments, extent, x, index, out)


def add_sum(program: Program, x: Tensor, out: Tensor, extent: Extent, index: Tensor | None = None) -> None:
    """Add `out[index] += x`, for an int64 index or all rows. `x` may be [size], the same for all rows."""
    arguments = Arguments(**_rows("x", x), **_rows("y", out), index=_at(index), size=x.shape[-1])
    _add(program, "add", arguments, extent, x, out, index)


def _add(program: Program, name: str, arguments: Arguments, extent: Extent, *kept: Tensor | None) -> None:
    program.add(kernel(f"{__package__}.layer_kernels", name), arguments, extent, 16 * arguments.size, *kept)


def _at(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _rows(name: str, tensor: Tensor | None) -> dict[str, int]:
    """The address and the step of rows. A vector is the same for all rows."""
    step = 0 if tensor is None or tensor.dim() == 1 else 4 * tensor.stride(0)
    return {name: _at(tensor), f"{name}_step": step}
