"""Attention of rows with equal shapes on a CPU: few calls of torch's flash attention.

The results are those of `sdpa.attend`, and as there a query's result is the same bit for bit, whatever is
computed beside it. To that end every segment of `KEY_BLOCK` keys attends for itself, since BLAS sums longer
rows in other ways, and no product has fewer than `_LEAST_ROWS` rows. The segments' results are joined as in
flash-decoding (Dao et al. 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

from langchain_eft.engine.attention.sdpa import KEY_BLOCK

_LEAST_DIM = 64
"""Smaller heads are summed in ways that depend on the number of queries."""

_LEAST_ROWS = 4
"""Products of fewer rows round in other ways."""

_ROWS_AT_ONCE = 32
"""torch divides the rows into parts of so many, or of a multiple; the last part has what remains."""

_HIDDEN = -1e30
"""What hides a key: finite, since a segment may have no key that a query attends to."""


def takes(query: Tensor, value_dim: int, softcap: float | None) -> bool:
    """Whether `flash_attend` computes attention of this kind.

    Args:
        query: [N, heads, dim] queries.
        value_dim: Size of the values.
        softcap: Bound on the scores, or None.
    """
    return (
        query.device.type == "cpu"
        and query.dtype == torch.float32
        and softcap is None
        and query.shape[-1] == value_dim >= _LEAST_DIM
    )


def flash_bias(bias: Tensor, groups: int) -> Tensor:
    """The bias in the form that `flash_attend` takes; all layers share it.

    Args:
        bias: [R, Q, T] `sdpa.causal_bias` of R rows with Q queries. T is a multiple of `KEY_BLOCK`.
        groups: G, query heads per key head.

    Returns:
        [R * S, 1, n, KEY_BLOCK] of S segments; n is Q * G with padding.
    """
    rows = _padded(bias.clamp(min=_HIDDEN).repeat_interleave(groups, 1))
    segments = rows.view(*rows.shape[:2], -1, KEY_BLOCK).transpose(1, 2)
    return segments.reshape(-1, 1, rows.shape[1], KEY_BLOCK)


def flash_attend(
    query: Tensor, context: Tensor, bias: Tensor, scaling: float, sinks: Tensor | None = None
) -> Tensor:
    """Grouped-query attention of R rows with Q queries each.

    Args:
        query: [R, Q, heads, dim].
        context: [R * S, kv_heads, KEY_BLOCK, 2 * dim] keys and values of S segments.
        bias: See `flash_bias`.
        scaling: Factor on the scores.
        sinks: [heads] learned sink logits (gpt-oss), or None.

    Returns:
        [R, Q, heads, dim].
    """
    num_rows, queries, _, dim = query.shape
    kv_heads, segments = context.shape[1], len(context) // num_rows
    of_heads = query.view(num_rows, queries, kv_heads, -1, dim).transpose(1, 2)
    rows = _padded(of_heads.reshape(num_rows, kv_heads, -1, dim))
    if segments > 1:
        rows = rows[:, None].expand(-1, segments, -1, -1, -1).flatten(0, 1)
    keys, values = torch.split(context, dim, -1)
    out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        rows, keys, values, attn_mask=bias, scale=scaling
    )
    if segments > 1:
        out, logsumexp = _joined(out, logsumexp.view(num_rows, segments, kv_heads, -1))
    out = out[:, :, : of_heads.shape[2] * of_heads.shape[3]].view(of_heads.shape)
    if sinks is not None:
        total = logsumexp[:, :, : out.shape[2] * out.shape[3]].view(out.shape[:-1])
        out = out / (sinks.float().view(kv_heads, 1, -1) - total).exp_().add_(1)[..., None]
    result: Tensor = out.transpose(1, 2).reshape(query.shape)
    return result


def _joined(out: Tensor, logsumexp: Tensor) -> tuple[Tensor, Tensor]:
    """Results over all segments, [R, kv_heads, n, dim] and [R, kv_heads, n], from those of single ones.

    Segments are added one after another, so that hidden ones at the end change nothing.

    Args:
        out: [R * S, kv_heads, n, dim].
        logsumexp: [R, S, kv_heads, n].
    """
    peak = logsumexp.amax(1, keepdim=True)
    weights = (logsumexp - peak).exp_()
    total = weights.cumsum(1)[:, -1]
    weighted = out.view(*logsumexp.shape, out.shape[-1]) * weights[..., None]
    return weighted.cumsum(1)[:, -1] / total[..., None], total.log().add_(peak[:, 0])


def _padded(rows: Tensor) -> Tensor:
    """[..., n, size] with further rows, equal to the first ones, so that no part has too few."""
    count = rows.shape[-2]
    missing = _LEAST_ROWS - (count % _ROWS_AT_ONCE or _ROWS_AT_ONCE)
    if missing <= 0:
        return rows
    more = rows[..., : min(missing, count), :]
    if missing > count:
        more = more[..., :1, :].expand(*more.shape[:-2], missing, -1)
    return torch.cat((rows, more), -2)
