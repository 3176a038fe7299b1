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
        logits: [B, V] float32 or float64 log-probabilities up to a constant per row.
        top_p: [B] in (0, 1].

    Returns:
        [B, V] bool.
    """
    distances = logits.amax(-1, keepdim=True) - logits
    wanted = top_p.double() * distances.neg().exp_().sum(-1, dtype=torch.float64)
    edge = _edge(distances, wanted)
    size, (last, following) = edge[:, :1].long(), edge[:, 1:, None].to(logits.dtype).unbind(1)
    furthest = last.clamp(min=LARGEST_TIE)
    inside = distances <= furthest
    if not takes_shortcuts(distances) or bool((following <= furthest).any()):  # not all that are equal
        before = distances < torch.where(last > LARGEST_TIE, last, 0.0)
        equal = inside & ~before
        inside = before | (equal & (equal.cumsum(-1) <= size - before.sum(-1, keepdim=True)))
    # Rounding of the sum must not drop a token where top_p is 1.
    return inside | (top_p[:, None] >= 1)


def _edge(distances: Tensor, wanted: Tensor) -> Tensor:
    """Where a nucleus ends.

    Args:
        distances: [B, V] float32, how far logits are below the largest one.
        wanted: [B] float64, the weight that the nucleus reaches.

    Returns:
        [B, 3] float64: its number of tokens, the distance of the last one, and the distance of the next one.
    """
    if not takes_shortcuts(distances):
        return _edge_of_sorted(distances.sort(-1).values, wanted)[1]
    # On a CPU, sorting a whole vocabulary takes as long as a small model.
    edge, rows = wanted.new_empty(len(wanted), 3), torch.arange(len(wanted))
    for count in _NUM_SORTED:
        found, part = _edge_of_sorted(distances[rows].topk(count, -1, largest=False).values, wanted[rows])
        edge[rows[found]], rows = part[found], rows[~found]
        if not len(rows):
            return edge
    edge[rows] = _edge_of_sorted(distances[rows].sort(-1).values, wanted[rows])[1]
    return edge


def _edge_of_sorted(nearest: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """[B] whether the smallest distances, in order, are enough, and the `_edge` that they show."""
    weights = torch.exp(-nearest).double()
    # The weight before each token is compared, so the token that crosses the threshold is kept.
    size = (weights.cumsum(-1) - weights < wanted[:, None]).sum(-1, keepdim=True)
    ends = torch.cat((size - 1, size), 1).clamp(0, nearest.shape[-1] - 1)
    return weights.sum(-1) > wanted, torch.cat((size.double(), nearest.gather(-1, ends).double()), 1)
