"""Attribution of a token: how far p is from its parts, and what each behavior adds to it.

p is the formula's distribution before temperature, penalties, filters and grammar. It is compared with the
same distribution without one of its parts, by total variation (TV). Samples of two distributions can be made
to agree `1 - TV` of the time at most (Leviathan et al. 2023, theorem 3.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from langchain_eft.engine.decoding.formula import conservative
from langchain_eft.engine.token_trace import BehaviorTrace, Shift, TokenTrace


@dataclass(frozen=True)
class WeightedDelta:
    """A behavior's delta at one position, `weight * (tuned - reference)`, of [V] log-probabilities.

    `opened` tells whether the weight's gate is open; it is None for a weight without a gate.
    """

    weight: float
    tuned: Tensor
    reference: Tensor
    opened: bool | None = None

    @property
    def added(self) -> Tensor:
        """[V] what the behavior adds to log p."""
        return self.weight * (self.tuned - self.reference)


@dataclass(frozen=True)
class Parts:
    """The formula at one position: log p, and the summands of log p."""

    p: Tensor  # [V] log p
    base: Tensor  # [V] log L
    deltas: Mapping[str, WeightedDelta]
    reference: Tensor | None  # [V] log S, or the mean of several; None where no small model takes part
    upscale_strength: float  # beta
    upscale_top_p: float  # nucleus of the small mixture inside which tokens are up-scaled
    vocabulary: Tensor  # [V] bool, ids of tokens that all models have. Other ids may have any finite value
    unscaled: Tensor | None = None  # [V] bool, tokens that always follow the small mixture alone, or None

    def small(self) -> Tensor | None:
        """[V] log-probabilities of the small mixture, `S + sum_i w_i (F_i - S_i)`; None without S."""
        if self.reference is None:
            return None
        return self.normalized(sum((delta.added for delta in self.deltas.values()), self.reference))

    def without(self, name: str) -> Tensor:
        """[V] log p without one of the behaviors."""
        small = self.small()
        scales_all = self.upscale_top_p == 1 and self.unscaled is None
        if scales_all or small is None or self.reference is None:
            return self.normalized(self.p - self.deltas[name].added)
        small_without = self.normalized(small - self.deltas[name].added)
        upscale = self.upscale_strength * (self.base - self.reference)
        top_p = small_without.new_tensor([self.upscale_top_p])
        unscaled = None if self.unscaled is None else self.unscaled[None]
        return self.normalized(conservative(small_without[None], upscale[None], top_p, unscaled)[0])

    def normalized(self, logits: Tensor) -> Tensor:
        """[V] log-probabilities over the common vocabulary; -inf for other ids."""
        return logits.masked_fill(~self.vocabulary, -torch.inf).log_softmax(-1)


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """The mean of tensors of one shape."""
    return torch.stack(list(tensors)).mean(0)


def normalize(logits: Tensor, vocabulary: Tensor) -> Tensor:
    """Log-probabilities over the common vocabulary; other ids keep a finite value without meaning.

    Args:
        logits: [..., V].
        vocabulary: [V] bool, ids of tokens that all models have.

    Returns:
        [..., V] float64, so that differences of almost equal values are exact.
    """
    logits = logits.double()
    return logits - logits.masked_fill(~vocabulary, -torch.inf).logsumexp(-1, keepdim=True)


def shift(before: Tensor, after: Tensor) -> Shift:
    """How one distribution differs from another, each given as [V] log-probabilities."""
    change = after.exp() - before.exp()
    up, down = int(change.argmax()), int(change.argmin())
    return Shift(float(change.abs().sum()) / 2, (up, float(change[up])), (down, float(change[down])))


def attribute(token: int, parts: Parts) -> TokenTrace:
    """Trace one token."""
    p, base, small = parts.normalized(parts.p), parts.normalized(parts.base), parts.small()
    return TokenTrace(
        logprob=float(p[token]),
        base=float(base[token]),
        small=None if small is None else float(small[token]),
        from_base=shift(base, p),
        from_small=None if small is None else shift(small, p),
        behaviors={
            name: BehaviorTrace(
                delta.weight,
                float(delta.tuned[token]),
                float(delta.reference[token]),
                shift(parts.without(name), p),
                delta.opened,
            )
            for name, delta in parts.deltas.items()
        },
    )
