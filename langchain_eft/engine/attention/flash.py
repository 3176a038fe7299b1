"""Attention of rows with equal shapes on a CPU: few calls of torch's flash attention.

The results are those of `sdpa.attend`, and as there a query's result is the same bit for bit, whatever is
computed beside it. To that end every segment of `KEY_BLOCK` keys attends for itself, since BLAS sums longer
rows in other ways, and no product has fewer than `MIN_ROWS` rows. The segments' results are joined as in
flash-decoding (Dao et al. 2023). So rows that begin with the same segments can attend to these as one row,
which reads them once. Hidden keys at the end of a segment add exact zeros. So where each row has a single
segment, it ends soon after the longest row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from langchain_eft.engine.attention.sdpa import KEY_BLOCK, MIN_ROWS

KEY_STEP = 32
"""The size of a segment is a multiple of this."""

_LEAST_DIM = 64
"""Smaller heads are summed in ways that depend on the number of queries."""

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
        bias: [R, Q, T] `sdpa.causal_bias` of R rows with Q queries. T is a multiple of `KEY_BLOCK`, or it is
            smaller, and a multiple of `KEY_STEP`.
        groups: G, query heads per key head.

    Returns:
        [R * S, 1, n, keys] of S segments with equal numbers of keys; n is Q * G with padding.
    """
    rows = _padded(bias.clamp(min=_HIDDEN).repeat_interleave(groups, 1))
    keys = min(rows.shape[2], KEY_BLOCK)
    segments = rows.view(*rows.shape[:2], -1, keys).transpose(1, 2)
    return segments.reshape(-1, 1, rows.shape[1], keys)


def flash_attend(
    query: Tensor,
    context: Tensor,
    bias: Tensor,
    scaling: float,
    sinks: Tensor | None = None,
    shared: Tensor | None = None,
) -> Tensor:
    """Grouped-query attention of R rows with Q queries each.

    Args:
        query: [R, Q, heads, dim].
        context: [R * S, kv_heads, keys, 2 * dim] keys and values of S segments of each row.
        bias: See `flash_bias`.
        scaling: Factor on the scores.
        sinks: [heads] learned sink logits (gpt-oss), or None.
        shared: [S', kv_heads, KEY_BLOCK, 2 * dim] segments before those, which all queries of all rows attend
            to, or None. All rows attend to them as one.

    Returns:
        [R, Q, heads, dim].
    """
    num_rows, queries = query.shape[:2]
    kv_heads, segments = context.shape[1], len(context) // num_rows
    rows = _by_key_head(query, kv_heads)
    out, logsumexp = _attend(rows, context, bias, scaling)
    if segments > 1 or shared is not None:
        out, logsumexp = (x.view(num_rows, segments, *x.shape[1:]) for x in (out, logsumexp))
    if shared is not None:
        of_all = _by_key_head(query.flatten(0, 1)[None], kv_heads)
        nothing_hidden = _padded(bias.new_zeros(len(shared), 1, of_all.shape[2], KEY_BLOCK))
        parts = _attend(of_all, shared, nothing_hidden, scaling)
        of_rows = (x.narrow(2, 0, of_all.shape[2]) for x in parts)
        before = [torch.unflatten(x, 2, (num_rows, -1)).movedim(2, 0) for x in of_rows]
        own = [x[:, :, :, : rows.shape[2]] for x in (out, logsumexp)]
        out, logsumexp = (torch.cat(pair, 1) for pair in zip(before, own, strict=True))
    if segments > 1 or shared is not None:
        out, logsumexp = _joined(out, logsumexp)
    result = out.narrow(2, 0, rows.shape[2])
    if sinks is not None:
        total = logsumexp.narrow(2, 0, rows.shape[2])
        sink = sinks.float().view(kv_heads, 1, -1).expand(-1, queries, -1).reshape(kv_heads, -1)
        result = result / (sink - total).exp_().add_(1)[..., None]
    if queries > 1:
        result = torch.unflatten(result, 2, (queries, -1)).transpose(1, 2)
    return result.reshape(query.shape)


def _by_key_head(query: Tensor, kv_heads: int) -> Tensor:
    """[R, Q, heads, dim] to [R, kv_heads, Q * G, dim]."""
    if query.shape[1] == 1:
        return query.view(len(query), kv_heads, -1, query.shape[-1])
    grouped = query.view(*query.shape[:2], kv_heads, -1, query.shape[-1]).transpose(1, 2)
    return grouped.reshape(len(query), kv_heads, -1, query.shape[-1])


def _attend(rows: Tensor, context: Tensor, bias: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """What every row gets from each of its segments.

    Args:
        rows: [R, kv_heads, m, dim] queries.
        context: [R * S, kv_heads, keys, 2 * dim].
        bias: [R * S, 1, n, keys]; n is m with padding.
        scaling: Factor on the scores.

    Returns:
        [R * S, kv_heads, n, dim], and the logarithms of the weights' sums, [R * S, kv_heads, n].
    """
    segments = len(context) // len(rows)
    padded = _padded(rows)
    if segments > 1:
        padded = padded[:, None].expand(-1, segments, -1, -1, -1).flatten(0, 1)
    keys, values = torch.split(context, rows.shape[-1], -1)
    lone = len(padded) * padded.shape[1] == 1 and torch.get_num_threads() > 1
    if lone:  # BLAS divides a lone product among threads, which changes its sums: give it a twin
        padded, keys, values, bias = (x.expand(2, -1, -1, -1) for x in (padded, keys, values, bias))
    out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        padded, keys, values, attn_mask=bias, scale=scaling
    )
    return (out[:1], logsumexp[:1]) if lone else (out, logsumexp)


def _joined(out: Tensor, logsumexp: Tensor) -> tuple[Tensor, Tensor]:
    """Results over all segments, [R, kv_heads, n, dim] and [R, kv_heads, n], from those of single ones.

    Segments are added one after another, so that hidden ones at the end change nothing. `out` is overwritten.

    Args:
        out: [R, S, kv_heads, n, dim].
        logsumexp: [R, S, kv_heads, n].
    """
    peak = logsumexp.amax(1, keepdim=True)
    weights = (logsumexp - peak).exp_()
    total = weights.cumsum(1)[:, -1]
    weighted = out.mul_(weights[..., None]).cumsum_(1)[:, -1]
    return weighted / total[..., None], total.log().add_(peak[:, 0])


def _padded(rows: Tensor) -> Tensor:
    """[..., n, size] with further rows, equal to the first ones, so that no part has too few."""
    count = rows.shape[-2]
    missing = MIN_ROWS - (count % _ROWS_AT_ONCE or _ROWS_AT_ONCE)
    if missing <= 0:
        return rows
    more = rows[..., : min(missing, count), :]
    if missing > count:
        more = more[..., :1, :].expand(*more.shape[:-2], missing, -1)
    return torch.cat((rows, more), -2)
