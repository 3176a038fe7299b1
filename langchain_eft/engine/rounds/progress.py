"""Where each row stands before a round, and where the round leaves it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from langchain_eft.engine.device_kernels import with_kernel
from langchain_eft.engine.rounds.staging import PackedTensors


@dataclass(frozen=True)
class RowProgress:
    """Where each row stands.

    Attributes:
        last: [B] int64, the token that is known but not computed.
        num_output_tokens: [B] int64, tokens of the answer.
        num_tokens: [B] int64, tokens of main prompt and answer.
        count: [B] int64, draft tokens that are made.
        alive: [B] bool, whether the answer may have more tokens.
    """

    last: Tensor
    num_output_tokens: Tensor
    num_tokens: Tensor
    count: Tensor
    alive: Tensor


@with_kernel("rounds.progress_triton:begin_kernel")
def begin(rows: Tensor, count: Tensor, limit: Tensor, prompt: Tensor, progress: Tensor) -> RowProgress:
    """Rows continue where the last round has left them.

    Args:
        rows: [B] int64, rows of the table.
        count: [B] int64, draft tokens of each row.
        limit: [B] int64, most tokens of each answer.
        prompt: [B] int64, tokens before each answer.
        progress: [rows, 2] int64, the last token of each answer in the table, and how many tokens it has.
    """
    last, length = progress[rows].unbind(1)
    remaining = limit - length
    return RowProgress(
        last=last,
        num_output_tokens=length,
        num_tokens=prompt + length,
        count=torch.minimum(count, remaining - 1).clamp(min=0),
        alive=remaining > 0,
    )


@with_kernel("rounds.progress_triton:accept_kernel")
def accept(
    draft_tokens: Tensor,
    tokens: Tensor,
    finite: Tensor,
    start: RowProgress,
    outputs: PackedTensors,
    rows: Tensor,
    progress: Tensor,
) -> None:
    """Accept draft tokens as far as they equal the tokens that were drawn, report that, and move on.

    Args:
        draft_tokens: [B, K] int64.
        tokens: [B, K + 1] int64, drawn from p.
        finite: [B, K + 1] bool, where a token could be drawn. A draft token that none can follow is refused.
        start: Where the rows stand.
        outputs: `outcomes.output_fields` of B rows; takes all but samples of q and log-probabilities.
        rows: As in `begin`.
        progress: As in `begin`; takes where the rows stand now.
    """
    steps = torch.arange(draft_tokens.shape[1], device=tokens.device)
    equal = (draft_tokens == tokens[:, :-1]) & (steps < start.count[:, None]) & finite[:, 1:]
    accepted = equal.long().cumprod(1).sum(1)
    for name, values in (
        ("undrawn", ~finite[:, 0]),
        ("draft_tokens", draft_tokens),
        ("count", start.count),
        ("tokens", tokens),
        ("accepted", accepted),
    ):
        outputs[name].copy_(values)
    following, length = tokens.gather(1, accepted[:, None])[:, 0], start.num_output_tokens
    progress[rows] = torch.stack(
        [
            torch.where(start.alive, following, start.last),
            torch.where(start.alive, length + accepted + 1, length),
        ],
        1,
    )
