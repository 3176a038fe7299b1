"""Draws by an exponential race, which rounding hardly ever changes.

Every token arrives after a random time, exponential with its weight as the rate. The first to arrive is a
draw in proportion to the weights; the Gumbel-max trick is the logarithm of this. The random numbers depend on
the seed and the position only. So where weights change by rounding, the draw changes only if two tokens
arrive almost at once, with a probability of the size of the change. A draw by the cumulative sum would add up
the changes of all tokens before the drawn one.

A race of a whole vocabulary would need a random number for each token. So blocks of tokens race first, with
their total weights, and then the tokens of the block that wins. By the chain rule that is the same draw.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from langchain_eft.engine.decoding.random import uniforms

BLOCK = 256
"""Tokens of a block. The square root of a vocabulary needs the fewest random numbers."""


def race(weights: Tensor, seeds: Tensor, positions: Tensor, purpose: int) -> Tensor:
    """Draw a token of every row in proportion to its weights, never one with weight 0.

    Args:
        weights: [R, V] float64, not negative. A row without a positive weight draws token 0.
        seeds: [R] int64, not negative.
        positions: [R] int64 position in the sequence.
        purpose: Distinguishes several draws at one position.

    Returns:
        [R] int64.
    """
    rows, size = weights.shape
    width = min(size, BLOCK)
    blocks = F.pad(weights, (0, -size % width)).view(rows, -1, width)
    of_blocks, of_tokens = uniforms(seeds, positions, purpose, max(blocks.shape[1:]))
    block = _first(blocks.sum(-1), of_blocks)
    token = _first(blocks[torch.arange(rows, device=block.device), block], of_tokens)
    return block * width + token


def _first(rates: Tensor, u: Tensor) -> Tensor:
    """[R] int64, which of n arrives first.

    Args:
        rates: [R, n] float64.
        u: [R, at least n] float64 in [0, 1).
    """
    times = -torch.log(1 - u[:, : rates.shape[1]]) / rates
    return times.masked_fill(rates <= 0, float("inf")).argmin(-1)
