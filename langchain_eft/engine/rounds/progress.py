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
def begin(inputs: PackedTensors, last: Tensor, num_output_tokens: Tensor) -> RowProgress:
    """Rows continue where the last round left them, or where the host says.

    Args:
        inputs: `transfer.input_fields` of B rows.
        last: [rows] int64, last token of each row of the last round.
        num_output_tokens: [rows] int64, tokens of its answer.
    """
    source = inputs["source"]
    earlier, continues = (source - 1).clamp(min=0), source > 0
    length = torch.where(continues, num_output_tokens[earlier], inputs["num_output_tokens"])
    remaining = inputs["limit"] - length
    return RowProgress(
        last=torch.where(continues, last[earlier], inputs["last"]),
        num_output_tokens=length,
        num_tokens=inputs["prompt"] + length,
        count=torch.minimum(inputs["count"], remaining - 1).clamp(min=0),
        alive=remaining > 0,
    )


@with_kernel("rounds.progress_triton:accept_kernel")
def accept(
    draft_tokens: Tensor,
    tokens: Tensor,
    finite: Tensor,
    progress: RowProgress,
    outputs: PackedTensors,
    last: Tensor,
    num_output_tokens: Tensor,
) -> None:
    """Accept draft tokens as far as they equal the tokens that were drawn, report that, and move on.

    Args:
        draft_tokens: [B, K] int64.
        tokens: [B, K + 1] int64, drawn from p.
        finite: [B, K + 1] bool, where a token could be drawn. A draft token that none can follow is refused.
        progress: Where the rows stand.
        outputs: `transfer.output_fields` of B rows; takes all but samples of q and log-probabilities.
        last: As in `begin`; takes the last token of each row.
        num_output_tokens: As in `begin`; takes the tokens of each answer.
    """
    rows, drafted = draft_tokens.shape
    steps = torch.arange(drafted, device=tokens.device)
    equal = (draft_tokens == tokens[:, :-1]) & (steps < progress.count[:, None]) & finite[:, 1:]
    accepted = equal.long().cumprod(1).sum(1)
    for name, values in (
        ("undrawn", ~finite[:, 0]),
        ("draft_tokens", draft_tokens),
        ("count", progress.count),
        ("tokens", tokens),
        ("accepted", accepted),
    ):
        outputs[name].copy_(values)
    following = tokens.gather(1, accepted[:, None])[:, 0]
    length = progress.num_output_tokens
    last[:rows] = torch.where(progress.alive, following, progress.last)
    num_output_tokens[:rows] = torch.where(progress.alive, length + accepted + 1, length)
