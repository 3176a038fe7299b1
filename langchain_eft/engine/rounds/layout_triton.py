"""`layout.lay_out` as one Triton kernel: it saves a dozen launches in every pass of every model."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from langchain_eft.engine.attention.batch import MAX_DECODING_QUERIES
from langchain_eft.engine.dependent_launch import dependent_launch, wait_for_previous
from langchain_eft.engine.rounds.layout import TokenLayout

WIDTH = 1 << (MAX_DECODING_QUERIES - 1).bit_length()
"""Power of two for the tokens of a row. One for all lengths, since each would compile the kernel again."""


def lay_out_kernel(
    tokens: Tensor,
    start: Tensor,
    prompt_end: Tensor,
    last: Tensor,
    offset: Tensor,
    count: Tensor,
    used: Tensor,
    variant: Tensor,
) -> TokenLayout:
    """Must equal `layout.lay_out`, in one launch. [S, B] arguments are contiguous, others need not be."""
    (slots, rows), n = used.shape, tokens.shape[1]
    of_tokens = torch.empty(3, slots * rows * n, dtype=torch.int64, device=tokens.device)
    of_rows = torch.empty(2, slots * rows, dtype=torch.int32, device=tokens.device)
    _lay_out[slots * rows,](
        tokens,
        start,
        prompt_end,
        last,
        offset,
        count,
        used,
        variant,
        of_tokens,
        of_rows,
        *tokens.stride(),
        offset.stride(0),
        count.stride(0),
        slots,
        rows,
        n,
        width=WIDTH,
        **dependent_launch(tokens.device),
    )
    return TokenLayout(*of_tokens, *of_rows)


@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["token_stride", "entry_stride", "offset_stride", "count_stride", "slots", "rows", "n"],
    do_not_specialize_on_alignment=[
        "tokens",
        "start",
        "prompt_end",
        "last",
        "offset",
        "count",
        "used",
        "variant",
        "of_tokens",
        "of_rows",
    ],
)
def _lay_out(
    tokens: tl.tensor,
    start: tl.tensor,
    prompt_end: tl.tensor,
    last: tl.tensor,
    offset: tl.tensor,
    count: tl.tensor,
    used: tl.tensor,
    variant: tl.tensor,
    of_tokens: tl.tensor,
    of_rows: tl.tensor,
    token_stride: tl.tensor,
    entry_stride: tl.tensor,
    offset_stride: tl.tensor,
    count_stride: tl.tensor,
    slots: tl.tensor,
    rows: tl.tensor,
    n: tl.tensor,
    width: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """The tokens of one row and slot."""
    wait_for_previous(dependent)
    index = tl.program_id(0).to(tl.int64)
    row, total = index % rows, slots.to(tl.int64) * rows
    step = tl.arange(0, width)
    inside = step < n
    queries = tl.where(tl.load(used + index) != 0, tl.load(count + row * count_stride).to(tl.int64), 0)
    begin = tl.load(last + index) + tl.load(offset + row * offset_stride)
    ids = tl.load(tokens + row * token_stride + step * entry_stride, mask=inside, other=0)
    ids = tl.where(begin + step == tl.load(start + index) - 1, tl.load(prompt_end + index), ids)
    out = of_tokens + index * n + step
    tl.store(out, ids, mask=inside)
    tl.store(out + total * n, tl.where(step < queries, begin + step, 0), mask=inside)
    tl.store(out + 2 * total * n, tl.load(variant + index) + step * 0, mask=inside)
    tl.store(of_rows + index, queries.to(tl.int32))
    tl.store(of_rows + total + index, tl.where(queries > 0, begin + queries, 0).to(tl.int32))
