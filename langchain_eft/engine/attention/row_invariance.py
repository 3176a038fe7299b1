"""Whether BLAS computes a row of a product in the same way, whatever rows are beside it.

What a seed promises on a CPU rests on this (`sdpa`, `flash`). MKL, which torch multiplies by on x86, keeps to
it in its strict reproducible mode. By default, on Intel's processors, it chooses kernels by the number of
rows. The package asks for the strict mode when it is imported; after its first product MKL no longer listens.
"""

from __future__ import annotations

import logging
from functools import cache

import torch

from langchain_eft.engine.attention.sdpa import KEY_BLOCK, MIN_ROWS

logger = logging.getLogger(__name__)

_SIZE = 128
"""Terms of each sum: the size of most models' heads, and of a block of keys."""

_MOST_ROWS = 32
"""Kernels for few rows are chosen for fewer than this."""


@cache
def rows_are_invariant() -> bool:
    """Whether a row of a product is the same bit for bit for every number of rows. It takes milliseconds."""
    generator = torch.Generator().manual_seed(0)
    rows, keys = (torch.randn(2, n, _SIZE, generator=generator) for n in (_MOST_ROWS, KEY_BLOCK))
    whole = torch.bmm(rows, keys.mT)
    fewer = range(MIN_ROWS, _MOST_ROWS)
    return all(torch.equal(torch.bmm(rows[:, :n], keys.mT), whole[:, :n]) for n in fewer)


def warn_of_varying_rows() -> None:
    """Warn if a seed may not give the same text in every batch on this processor."""
    if not rows_are_invariant():
        logger.warning(
            "torch's products depend on the number of their rows in this process, so near ties may fall "
            "otherwise in another batch or with another draft length. Import langchain_eft before torch "
            "computes anything, or set MKL_CBWR=AUTO,STRICT in the environment."
        )
