"""The formula by its definition."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def formula_log_p(
    large: Tensor,
    small: Tensor,
    pairs: Iterable[tuple[float, Tensor, Tensor]],
    strength: float = 1.0,
    top_p: float = 1.0,
    unscaled: Iterable[int] = (),
) -> Tensor:
    """Normalized log p of the formula (Mitchell et al. 2023, eq. 4 and 7).

    Args:
        large: [..., V] log-probabilities of L.
        small: [..., V] log-probabilities of S, or the mean of several.
        pairs: Weight, [..., V] log-probabilities of F_i and of its S_i, for each behavior.
        strength: beta.
        top_p: Nucleus of the small mixture that bounds up-scaling.
        unscaled: Token ids that are not up-scaled.

    Returns:
        [..., V].
    """
    pairs = list(pairs)
    mixed = small + sum(weight * (tuned - reference) for weight, tuned, reference in pairs)
    upscale = strength * (large - small)
    if pairs:
        upscale[..., list(unscaled)] = 0.0
    return conservative_log_p(mixed.log_softmax(-1), upscale, top_p)


def conservative_log_p(mixed: Tensor, upscale: Tensor, top_p: float) -> Tensor:
    """Up-scale the tokens of the small mixture's nucleus only.

    Args:
        mixed: [..., V] log-probabilities of the small mixture.
        upscale: [..., V] logarithm of the up-scaling weights.
        top_p: The nucleus; 1 is all tokens.

    Returns:
        [..., V] normalized log p.
    """
    if top_p < 1:
        ordered, order = mixed.double().sort(descending=True, stable=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        nucleus = torch.zeros_like(mixed, dtype=torch.bool).scatter(-1, order, before < top_p)
        upscale = torch.where(nucleus, upscale, 0.0)
    return (mixed + upscale).log_softmax(-1)
