"""Counter-based random numbers: the same for the same seed and position, independent otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLE, TEST, RESIDUAL = 0, 1, 2
"""Purposes of the random numbers at one position: to draw x from q, to test x, and to draw in its place."""

_MASK32 = 0xFFFFFFFF


def uniforms(seeds: Tensor, positions: Tensor, purpose: int, count: int) -> tuple[Tensor, Tensor]:
    """Two sequences of random numbers for each row.

    Args:
        seeds: [R] int64, not negative.
        positions: [R] int64 position in the sequence.
        purpose: Distinguishes several draws at one position.
        count: n, length of the sequences. A longer sequence begins with the shorter one.

    Returns:
        Two [R, n] float64 in [0, 1), with 53 random bits.
    """
    index = torch.arange(count, device=seeds.device)[None]
    a, b, c, d = philox4x32(
        ((positions & _MASK32)[:, None], (positions >> 32)[:, None], torch.full_like(index, purpose), index),
        ((seeds & _MASK32)[:, None], (seeds >> 32)[:, None]),
    )
    return _fraction(a, b), _fraction(c, d)


def _fraction(high: Tensor, low: Tensor) -> Tensor:
    """float64 in [0, 1) from the bits of two 32-bit words."""
    return ((high >> 5) * 2**26 + (low >> 6)).double() * 2.0**-53


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
