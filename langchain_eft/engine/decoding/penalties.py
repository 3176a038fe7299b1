"""Penalties and biases on logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from langchain_eft.engine.decoding.sampling import SamplingRow


@dataclass(frozen=True)
class Penalties:
    """Penalties and biases of R rows.

    Attributes:
        counts: [R, V] float32, how often the answer holds each token.
        seen: [R, V] bool, whether prompt or answer hold it.
        repetition: [R] float32, 1 for none.
        frequency: [R] float32.
        presence: [R] float32.
        bias: [R, V] float32.
    """

    counts: Tensor
    seen: Tensor
    repetition: Tensor
    frequency: Tensor
    presence: Tensor
    bias: Tensor

    @classmethod
    def of(cls, rows: Sequence[SamplingRow], size: int, device: torch.device) -> Penalties:
        """The penalties of rows that lie on the host.

        Args:
            rows: R rows.
            size: Number of token ids.
            device: Where they go.
        """
        counts = torch.stack([_count(row.output, size) for row in rows])
        seen = counts + torch.stack([_count(row.prompt, size) for row in rows]) > 0
        params = [row.params for row in rows]
        strengths = torch.tensor(
            [[p.repetition_penalty, p.frequency_penalty, p.presence_penalty] for p in params]
        ).to(device)
        bias = torch.zeros(len(rows), size)
        for of_row, p in zip(bias, params, strict=True):
            if p.logit_bias:
                of_row[list(p.logit_bias)] = torch.tensor(list(p.logit_bias.values()))
        repetition, frequency, presence = strengths.unbind(1)
        return cls(counts.to(device), seen.to(device), repetition, frequency, presence, bias.to(device))


def penalize(logits: Tensor, penalties: Penalties) -> Tensor:
    """Apply penalties and biases.

    Args:
        logits: [R, V] float32 log-probabilities up to a constant per row.
        penalties: R rows.

    Returns:
        [R, V] log-probabilities up to a constant per row.
    """
    logprobs = logits.log_softmax(-1)
    # Log-probabilities are never positive, so the penalty always multiplies.
    logprobs = torch.where(penalties.seen, logprobs * penalties.repetition[:, None], logprobs)
    counted = penalties.frequency[:, None] * penalties.counts
    return logprobs - (counted + penalties.presence[:, None] * (penalties.counts > 0)) + penalties.bias


def apply_penalties(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Apply penalties and biases to the rows that have any.

    Args:
        logits: [R, V] float32.
        rows: R rows.

    Returns:
        [R, V]; rows without penalties are unchanged.
    """
    touched = [i for i, row in enumerate(rows) if row.params.has_penalties]
    if not touched:
        return logits
    penalties = Penalties.of([rows[i] for i in touched], logits.shape[-1], logits.device)
    logits = logits.clone()
    logits[touched] = penalize(logits[touched], penalties)
    return logits


def _count(tokens: Sequence[int], size: int) -> Tensor:
    return torch.bincount(torch.tensor(tokens, dtype=torch.int64), minlength=size).float()
