"""Counter-based random numbers: the same for the same seed and position, independent otherwise."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLE, TEST, RESIDUAL = 0, 1, 2
"""Purposes of the random numbers at one position: to draw x from q, to test x, and to draw in its place."""

_MASK32 = 0xFFFFFFFF
_MULTIPLIERS = torch.tensor([0xD2511F53, 0xCD9E8D57])
_KEY_STEPS = torch.tensor([0x9E3779B9, 0xBB67AE85])


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
    index = torch.arange(count, device=seeds.device).expand(len(seeds), -1)
    low, high = ((x[:, None].expand_as(index)) for x in _words(positions))
    counter = torch.stack([low, high, torch.full_like(index, purpose), index])
    first, second, third, fourth = philox4x32(counter, torch.stack(_words(seeds))[..., None])
    return _fraction(first, second), _fraction(third, fourth)


def _words(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The low and high 32-bit words of 64-bit numbers."""
    return numbers & _MASK32, numbers >> 32


def _fraction(high: Tensor, low: Tensor) -> Tensor:
    """float64 in [0, 1) from the bits of two 32-bit words."""
    return ((high >> 5) * 2**26 + (low >> 6)).double() * 2.0**-53


def philox4x32(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Args:
        counter: [4, ...] int64 that hold 32-bit words.
        key: [2, ...] int64 that hold 32-bit words, and broadcast.

    Returns:
        [4, ...] int64 that hold 32-bit words.
    """
    shape = (2, *[1] * (counter.dim() - 1))
    multipliers, steps = (x.to(counter.device).view(shape) for x in (_MULTIPLIERS, _KEY_STEPS))
    even, odd = counter[0::2], counter[1::2]
    for _ in range(10):
        # int64 products wrap around, which leaves their low and (masked) high words right.
        products = even * multipliers
        even = ((products >> 32) & _MASK32).flip(0) ^ odd ^ key
        odd = (products & _MASK32).flip(0)
        key = (key + steps) & _MASK32
    return torch.stack([even, odd], 1).flatten(0, 1)
