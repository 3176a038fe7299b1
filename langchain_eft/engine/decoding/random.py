"""Counter-based random numbers, and draws by the inverse of a cumulative distribution function."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF


def invert_cdf(probs: Tensor, u: Tensor) -> Tensor:
    """The token at which the cumulative probability passes `u`; it never has probability 0.

    One uniform number per token keeps the answer of a seed stable against rounding. The answer changes only
    if `u` is so close to a boundary between tokens that rounding moves the boundary past it.

    Args:
        probs: [B, V] float64.
        u: [B] float64 in [0, 1).

    Returns:
        [B] int64.
    """
    cdf = probs.cumsum(-1)
    index = torch.searchsorted(cdf, (u * cdf[:, -1])[:, None], right=True)[:, 0]
    return index.clamp(max=probs.shape[-1] - 1)


def uniform(seeds: Tensor, positions: Tensor, purpose: int = 0) -> Tensor:
    """Counter-based random numbers: the same for the same arguments, independent otherwise.

    Args:
        seeds: [B] int64, not negative.
        positions: [B] int64 position in the sequence.
        purpose: Distinguishes several draws at one position.

    Returns:
        [B] float64 in [0, 1), with 53 random bits.
    """
    purposes = torch.full_like(positions, purpose)
    words = philox4x32(
        (positions & _MASK32, positions >> 32, purposes, torch.zeros_like(positions)),
        (seeds & _MASK32, seeds >> 32),
    )
    return ((words[0] >> 5) * 2**26 + (words[1] >> 6)).double() * 2.0**-53


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Args:
        counter: Four int64 tensors that hold 32-bit words.
        key: Two int64 tensors that hold 32-bit words.

    Returns:
        Four int64 tensors that hold 32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap around, which leaves their low and (masked) high words right.
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _MASK32) ^ c1 ^ k0,
            product1 & _MASK32,
            ((product0 >> 32) & _MASK32) ^ c3 ^ k1,
            product0 & _MASK32,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _MASK32, (k1 + 0xBB67AE85) & _MASK32
    return c0, c1, c2, c3
