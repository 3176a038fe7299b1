"""Penalties on tokens that have occurred."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Penalties:
    """Penalties of R rows."""

    counts: Tensor  # [R, V] float32, how often each token occurs in the answer
    seen: Tensor  # [R, V] bool, whether a token occurs in prompt or answer
    repetition: Tensor  # [R] float32, 1 for none
    frequency: Tensor  # [R] float32, subtracted once per occurrence in the answer
    presence: Tensor  # [R] float32, subtracted once from tokens that occur in the answer


def penalize(logits: Tensor, penalties: Penalties) -> Tensor:
    """Apply penalties.

    Args:
        logits: [R, V] float32 log-probabilities up to a constant per row.
        penalties: R rows.

    Returns:
        [R, V] log-probabilities up to a constant per row.
    """
    logprobs = logits.log_softmax(-1)
    # Log-probabilities are never positive, so the penalty always multiplies.
    logprobs = torch.where(penalties.seen, logprobs * penalties.repetition[:, None], logprobs)
    frequency = penalties.frequency[:, None] * penalties.counts
    presence = penalties.presence[:, None] * (penalties.counts > 0)
    return logprobs - (frequency + presence)
