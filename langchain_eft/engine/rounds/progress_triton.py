"""`progress.begin` and `progress.accept` as one Triton kernel each, instead of 44 launches a round."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from langchain_eft.engine.dependent_launch import dependent_launch, wait_for_previous
from langchain_eft.engine.rounds.layout_triton import WIDTH
from langchain_eft.engine.rounds.progress import RowProgress
from langchain_eft.engine.rounds.staging import PackedTensors


def begin_kernel(inputs: PackedTensors, last: Tensor, num_output_tokens: Tensor) -> RowProgress:
    """Must equal `progress.begin`, in one launch."""
    source = inputs["source"]
    (rows,) = source.shape
    numbers = torch.empty(4, rows, dtype=torch.int64, device=source.device)
    alive = torch.empty(rows, dtype=torch.bool, device=source.device)
    names = ("source", "last", "num_output_tokens", "limit", "prompt", "count")
    _begin[rows,](
        *(inputs[name] for name in names),
        last,
        num_output_tokens,
        numbers,
        alive,
        rows,
        **dependent_launch(source.device),
    )
    known, length, num_tokens, drafted = numbers
    return RowProgress(known, length, num_tokens, drafted, alive)


@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["rows"],
    do_not_specialize_on_alignment=["earlier_last", "earlier_num_output_tokens", "alive"],
)
def _begin(
    source: tl.tensor,
    last: tl.tensor,
    num_output_tokens: tl.tensor,
    limit: tl.tensor,
    prompt: tl.tensor,
    count: tl.tensor,
    earlier_last: tl.tensor,
    earlier_num_output_tokens: tl.tensor,
    numbers: tl.tensor,
    alive: tl.tensor,
    rows: tl.tensor,
    dependent: tl.constexpr,
) -> None:
    """One row."""
    wait_for_previous(dependent)
    row = tl.program_id(0).to(tl.int64)
    origin = tl.load(source + row)
    if origin > 0:
        known, length = tl.load(earlier_last + origin - 1), tl.load(earlier_num_output_tokens + origin - 1)
    else:
        known, length = tl.load(last + row), tl.load(num_output_tokens + row)
    remaining = tl.load(limit + row) - length
    tl.store(numbers + row, known)
    tl.store(numbers + rows + row, length)
    tl.store(numbers + 2 * rows + row, tl.load(prompt + row) + length)
    tl.store(numbers + 3 * rows + row, tl.maximum(tl.minimum(tl.load(count + row), remaining - 1), 0))
    tl.store(alive + row, remaining > 0)


def accept_kernel(
    draft_tokens: Tensor,
    tokens: Tensor,
    finite: Tensor,
    progress: RowProgress,
    outputs: PackedTensors,
    last: Tensor,
    num_output_tokens: Tensor,
) -> None:
    """Must equal `progress.accept`, in one launch. All tensors are contiguous."""
    rows, drafted = draft_tokens.shape
    names = ("undrawn", "draft_tokens", "count", "tokens", "accepted")
    _accept[rows,](
        draft_tokens,
        tokens,
        finite,
        progress.last,
        progress.num_output_tokens,
        progress.count,
        progress.alive,
        *(outputs[name] for name in names),
        last,
        num_output_tokens,
        drafted,
        width=WIDTH,
        **dependent_launch(tokens.device),
    )


@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["drafted"],
    do_not_specialize_on_alignment=[
        "draft_tokens",
        "tokens",
        "finite",
        "old_last",
        "old_num_output_tokens",
        "count",
        "alive",
        "new_last",
        "new_num",
    ],
)
def _accept(
    draft_tokens: tl.tensor,
    tokens: tl.tensor,
    finite: tl.tensor,
    old_last: tl.tensor,
    old_num_output_tokens: tl.tensor,
    count: tl.tensor,
    alive: tl.tensor,
    undrawn_out: tl.tensor,
    draft_tokens_out: tl.tensor,
    count_out: tl.tensor,
    tokens_out: tl.tensor,
    accepted_out: tl.tensor,
    new_last: tl.tensor,
    new_num: tl.tensor,
    drafted: tl.tensor,
    width: tl.constexpr,
    dependent: tl.constexpr,
) -> None:
    """One row."""
    wait_for_previous(dependent)
    row = tl.program_id(0).to(tl.int64)
    step = tl.arange(0, width)
    is_draft, inside = step < drafted, step <= drafted
    draft = tl.load(draft_tokens + row * drafted + step, mask=is_draft, other=0)
    token = tl.load(tokens + row * (drafted + 1) + step, mask=inside, other=0)
    follows = tl.load(finite + row * (drafted + 1) + step + 1, mask=is_draft, other=0) != 0
    made = tl.load(count + row)
    equal = is_draft & (draft == token) & (step < made) & follows
    # The number of draft tokens before the first one that is refused.
    accepted = tl.min(tl.where(equal, width, step), 0).to(tl.int64)
    following = tl.sum(tl.where(step == accepted, token, 0), 0)
    tl.store(undrawn_out + row, tl.load(finite + row * (drafted + 1)) == 0)
    tl.store(draft_tokens_out + row * drafted + step, draft, mask=is_draft)
    tl.store(count_out + row, made)
    tl.store(tokens_out + row * (drafted + 1) + step, token, mask=inside)
    tl.store(accepted_out + row, accepted)
    goes_on, length = tl.load(alive + row) != 0, tl.load(old_num_output_tokens + row)
    tl.store(new_last + row, tl.where(goes_on, following, tl.load(old_last + row)))
    tl.store(new_num + row, tl.where(goes_on, length + accepted + 1, length))
