"""The acceptance rule of speculative sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langchain_eft.engine.decoding.random import invert_cdf, uniform

TEST, RESIDUAL = 1, 2
"""Purposes of the random numbers of one position; purpose 0 is `sampling.draw`'s."""


def accept_or_resample(p: Tensor, q: Tensor, drawn: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """Turn samples of q into samples of p, keeping as many as possible.

    Args:
        p: [R, V] float64 target probabilities.
        q: [R, V] float64 draft probabilities; a row equal to p keeps its sample.
        drawn: [R] int64 samples of q.
        seeds: [R] int64.
        positions: [R] int64.

    Returns:
        [R] int64 samples of p.
    """
    pd, qd = (x.gather(1, drawn[:, None])[:, 0] for x in (p, q))
    residual = (p - q).clamp(min=0)
    # Rounding may leave nothing to draw from where p and q are all but equal.
    kept = (uniform(seeds, positions, TEST) * qd < pd) | (residual.sum(-1) == 0)
    return torch.where(kept, drawn, invert_cdf(residual, uniform(seeds, positions, RESIDUAL)))


def num_accepted(draft_tokens: Sequence[int], tokens: Sequence[int]) -> int:
    """How many draft tokens equal the tokens drawn from p at their positions, up to the first that differs.

    Args:
        draft_tokens: K draft tokens.
        tokens: K + 1 tokens drawn from p, each after the draft tokens before it.
    """
    accepted = 0
    while accepted < len(draft_tokens) and draft_tokens[accepted] == tokens[accepted]:
        accepted += 1
    return accepted
