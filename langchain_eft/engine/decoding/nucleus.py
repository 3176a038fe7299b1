"""The nucleus of a distribution: the tokens that top-p keeps (Holtzman et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from langchain_eft.engine.decoding.shortcuts import SMALL_VOCABULARY, takes_shortcuts

LARGEST_TIE = 2.0**-27
"""Logits this close to the largest one are equal to it: above 1/8, float32 rounds to larger steps."""

_NUM_SORTED = 64, SMALL_VOCABULARY
"""Tokens that a CPU sorts first, before it sorts a whole vocabulary."""


def nucleus(logits: Tensor, top_p: Tensor) -> Tensor:
    """The tokens that are at least as probable as the last one which is needed to reach `top_p`.

    Equally probable tokens are kept or dropped together. The most probable one is always kept.

    Args:
        logits: [B, V] float32 or float64 log-probabilities up to a constant per row.
        top_p: [B] in (0, 1].

    Returns:
        [B, V] bool.
    """
    distances = logits.amax(-1, keepdim=True) - logits
    wanted = top_p.double() * distances.neg().exp_().sum(-1, dtype=torch.float64)
    last = _last(distances, wanted).clamp(min=LARGEST_TIE)[:, None]
    # Rounding of the sum must not drop a token where top_p is 1.
    return (distances <= last) | (top_p[:, None] >= 1)


def _last(distances: Tensor, wanted: Tensor) -> Tensor:
    """How far the last token that is needed is below the largest logit.

    Args:
        distances: [B, V] how far logits are below the largest one.
        wanted: [B] float64, the weight that the nucleus reaches.

    Returns:
        [B].
    """
    if not takes_shortcuts(distances):
        return _last_of_sorted(distances.sort(-1).values, wanted)[1]
    # On a CPU, sorting a whole vocabulary takes as long as a small model.
    last, rows = distances.new_empty(len(wanted)), torch.arange(len(wanted))
    for count in _NUM_SORTED:
        found, part = _last_of_sorted(distances[rows].topk(count, -1, largest=False).values, wanted[rows])
        last[rows[found]], rows = part[found], rows[~found]
        if not len(rows):
            return last
    last[rows] = _last_of_sorted(distances[rows].sort(-1).values, wanted[rows])[1]
    return last


def _last_of_sorted(nearest: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """[B] whether the smallest distances, in order, are enough, and the `_last` that they show."""
    weights = torch.exp(-nearest).double()
    # The weight before each token is compared, so the token that crosses the threshold is kept.
    size = (weights.cumsum(-1) - weights < wanted[:, None]).sum(-1, keepdim=True)
    last = nearest.gather(-1, (size - 1).clamp(min=0))
    return weights.sum(-1) > wanted, last[:, 0]
