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


def begin_kernel(rows: Tensor, count: Tensor, limit: Tensor, prompt: Tensor, progress: Tensor) -> RowProgress:
    """Must equal `progress.begin`, in one launch. All tensors are contiguous."""
    (size,) = rows.shape
    numbers = torch.empty(4, size, dtype=torch.int64, device=rows.device)
    alive = torch.empty(size, dtype=torch.bool, device=rows.device)
    _begin[size,](rows, count, limit, prompt, progress, numbers, alive, size, **dependent_launch(rows.device))
    last, length, num_tokens, drafted = numbers
    return RowProgress(last, length, num_tokens, drafted, alive)


@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["size"],
    do_not_specialize_on_alignment=["rows", "count", "limit", "prompt", "progress", "numbers", "alive"],
)
def _begin(
    rows: tl.tensor,
    count: tl.tensor,
    limit: tl.tensor,
    prompt: tl.tensor,
    progress: tl.tensor,
    numbers: tl.tensor,
    alive: tl.tensor,
    size: tl.tensor,
    dependent: tl.constexpr,
) -> None:
    """One row."""
    wait_for_previous(dependent)
    row = tl.program_id(0).to(tl.int64)
    place = progress + 2 * tl.load(rows + row)
    length = tl.load(place + 1)
    remaining = tl.load(limit + row) - length
    tl.store(numbers + row, tl.load(place))
    tl.store(numbers + size + row, length)
    tl.store(numbers + 2 * size + row, tl.load(prompt + row) + length)
    tl.store(numbers + 3 * size + row, tl.maximum(tl.minimum(tl.load(count + row), remaining - 1), 0))
    tl.store(alive + row, remaining > 0)


def accept_kernel(
    draft_tokens: Tensor,
    tokens: Tensor,
    finite: Tensor,
    start: RowProgress,
    outputs: PackedTensors,
    rows: Tensor,
    progress: Tensor,
) -> None:
    """Must equal `progress.accept`, in one launch. All tensors are contiguous."""
    size, drafted = draft_tokens.shape
    names = ("undrawn", "draft_tokens", "count", "tokens", "accepted")
    _accept[size,](
        draft_tokens,
        tokens,
        finite,
        start.last,
        start.num_output_tokens,
        start.count,
        start.alive,
        *(outputs[name] for name in names),
        rows,
        progress,
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
        "rows",
        "progress",
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
    rows: tl.tensor,
    progress: tl.tensor,
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
    place = progress + 2 * tl.load(rows + row)
    tl.store(place, tl.where(goes_on, following, tl.load(old_last + row)))
    tl.store(place + 1, tl.where(goes_on, length + accepted + 1, length))
