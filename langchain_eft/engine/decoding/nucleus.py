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
    """The smallest set of tokens whose probability reaches `top_p`; it always has the most probable token.

    Of equally probable tokens it takes those with the lowest ids.

    Args:
        logits: [B, V] float32 log-probabilities up to a constant per row.
        top_p: [B] in (0, 1].

    Returns:
        [B, V] bool.
    """
    distances = logits.amax(-1, keepdim=True) - logits
    wanted = top_p.double() * distances.neg().exp_().sum(-1, dtype=torch.float64)
    nearest, weights = _nearest(distances, wanted)
    # The weight before each token is compared, so the token that crosses the threshold is kept.
    size = (weights.cumsum(-1) - weights < wanted[:, None]).sum(-1, keepdim=True)
    last = nearest.gather(-1, (size - 1).clamp(min=0))
    furthest = last.clamp(min=LARGEST_TIE)
    inside = distances <= furthest
    following = nearest.gather(-1, size.clamp(max=nearest.shape[-1] - 1))
    if not takes_shortcuts(distances) or bool((following <= furthest).any()):  # not all that are equal
        before = distances < torch.where(last > LARGEST_TIE, last, 0.0)
        equal = inside & ~before
        inside = before | (equal & (equal.cumsum(-1) <= size - before.sum(-1, keepdim=True)))
    # Rounding of the sum must not drop a token where top_p is 1.
    return inside | (top_p[:, None] >= 1)


def _nearest(distances: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest of [B, V] distances in order, and their weights.

    They are at least as many as a nucleus of the weight `wanted`, [B], has tokens.
    """
    if takes_shortcuts(distances):
        # On a CPU, sorting a whole vocabulary takes as long as a small model.
        for count in _NUM_SORTED:
            nearest = distances.topk(count, -1, largest=False).values
            weights = torch.exp(-nearest).double()
            if bool((weights.sum(-1) > wanted).all()):
                return nearest, weights
    nearest = distances.sort(-1).values
    return nearest, torch.exp(-nearest).double()
