"""Gates as tensors: which of them are open, and what that changes in sums of terms.

See `recipe.gate` for what a gate is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.recipe.gate import MEASURES, Gate


class GateNumbers(NamedTuple):
    """A gate in numbers, for tensors."""

    measure: int  # number of its measure in `MEASURES`
    threshold: float  # `below` or `above`
    below: bool  # whether it is open up to the threshold, rather than beyond it

    @classmethod
    def of(cls, gate: Gate) -> GateNumbers:
        """The numbers of a gate."""
        return cls(MEASURES.index(gate.measure), gate.threshold, gate.below is not None)


def measures(base: Tensor, vocabulary: Tensor) -> Tensor:
    """How sure the base is of the next token.

    Args:
        base: [R, V] logits of L.
        vocabulary: [V] bool, ids of tokens that all models have.

    Returns:
        [R, 2] float32, the value of each of `MEASURES`: the largest probability, and the entropy in nats.
    """
    logprobs = base.float().masked_fill(~vocabulary, float("-inf")).log_softmax(-1)
    probs = logprobs.exp()
    entropy = (probs * logprobs.masked_fill(~vocabulary, 0.0)).sum(-1).neg()
    # Rounding must not put a value outside its range, where no gate that is always open would be open.
    return torch.stack([probs.amax(-1).clamp(max=1.0), entropy.clamp(min=0.0)], -1)


def open_gates(values: Tensor, measure: Tensor, threshold: Tensor, below: Tensor) -> Tensor:
    """Which gates are open.

    Args:
        values: [R, 2] the value of each of `MEASURES`.
        measure: [R, G] int64, number of each gate's measure.
        threshold: [R, G] float32.
        below: [R, G] bool, whether a gate is open up to its threshold, rather than beyond it.

    Returns:
        [R, G] float32: 1 where a gate is open, 0 where it is closed, NaN where the base's logits are not
        finite, so that p shows it even if p has no term of the base.
    """
    value = values.gather(1, measure)
    opened = ((value <= threshold) == below).float()
    return opened.masked_fill(value.isnan(), float("nan"))


def add_gated(weights: Tensor, opened: Tensor, changes: Tensor) -> Tensor:
    """Add to the weights of sums what their open gates add.

    Args:
        weights: [R, T].
        opened: [R, G] of `open_gates`.
        changes: [R, G, T] what each gate adds to each weight where it is open. A row with fewer than G gates
            has zeros.

    Returns:
        [R, T].
    """
    # A row without gates may have any logits in the place of the base's, also NaN.
    added = torch.where(changes == 0, 0.0, opened[..., None] * changes)
    return weights + added.sum(1)
