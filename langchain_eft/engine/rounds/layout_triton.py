"""`seats.lay_out` as one Triton kernel: a dozen launches less for every pass of every model."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from langchain_eft.engine.rounds.layout import TokenLayout


def lay_out_kernel(
    tokens: Tensor, first: Tensor, offset: Tensor, count: Tensor, used: Tensor, variant: Tensor
) -> TokenLayout:
    """`seats.lay_out` in one launch; [S, B] arguments are contiguous, others have any strides."""
    (slots, rows), n = used.shape, tokens.shape[1]
    wide = torch.empty(3, slots * rows * n, dtype=torch.int64, device=tokens.device)
    narrow = torch.empty(2, slots * rows, dtype=torch.int32, device=tokens.device)
    _lay_out[slots * rows,](
        tokens,
        first,
        offset,
        count,
        used,
        variant,
        wide,
        narrow,
        *tokens.stride(),
        offset.stride(0),
        count.stride(0),
        slots,
        rows=rows,
        n=n,
        width=int(triton.next_power_of_2(n)),
    )
    return TokenLayout(*wide, *narrow)


@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["token_stride", "place_stride", "offset_stride", "count_stride", "slots"]
)
def _lay_out(
    tokens: tl.tensor,
    first: tl.tensor,
    offset: tl.tensor,
    count: tl.tensor,
    used: tl.tensor,
    variant: tl.tensor,
    wide: tl.tensor,
    narrow: tl.tensor,
    token_stride: tl.tensor,
    place_stride: tl.tensor,
    offset_stride: tl.tensor,
    count_stride: tl.tensor,
    slots: tl.tensor,
    rows: tl.constexpr,
    n: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """One row of one slot."""
    place = tl.program_id(0).to(tl.int64)
    row, total = place % rows, slots.to(tl.int64) * rows
    step = tl.arange(0, width)
    inside = step < n
    queries = tl.where(tl.load(used + place) != 0, tl.load(count + row * count_stride).to(tl.int64), 0)
    begin = tl.load(first + place) + tl.load(offset + row * offset_stride)
    ids = tl.load(tokens + row * token_stride + step * place_stride, mask=inside, other=0)
    out = wide + place * n + step
    tl.store(out, ids, mask=inside)
    tl.store(out + total * n, tl.where(step < queries, begin + step, 0), mask=inside)
    tl.store(out + 2 * total * n, tl.load(variant + place) + step * 0, mask=inside)
    tl.store(narrow + place, queries.to(tl.int32))
    tl.store(narrow + total + place, tl.where(queries > 0, begin + queries, 0).to(tl.int32))
