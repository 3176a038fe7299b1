"""The blocks of GGUF files as weights of the kernels."""

from __future__ import annotations

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.block_formats import (
    EIGHT_BITS,
    EIGHT_BITS_IN_16,
    EIGHT_BITS_WITH_MINIMA,
    EIGHT_BITS_WITH_STEPS,
    FOUR_BITS,
    FOUR_BITS_WITH_STEPS,
    BlockFormat,
)
from langchain_eft.engine.kernels.formats import Packed
from langchain_eft.engine.kernels.packing import pack

BLOCKS: dict[Kind, BlockFormat] = {
    Kind.Q4_0: FOUR_BITS,
    Kind.Q4_1: FOUR_BITS,
    Kind.Q5_0: EIGHT_BITS,
    Kind.Q5_1: EIGHT_BITS_WITH_MINIMA,
    Kind.Q8_0: EIGHT_BITS,
    Kind.Q4_K: FOUR_BITS_WITH_STEPS,
    Kind.Q5_K: EIGHT_BITS_WITH_STEPS,
    Kind.Q6_K: EIGHT_BITS_IN_16,
}
"""How the kernels take each kind of blocks."""


def pack_blocks(rows: Tensor, kind: Kind, arena: Arena) -> Packed:
    """Pack a weight for the kernels.

    Args:
        rows: [out, bytes of a row] uint8, as they are in the file.
        kind: One of `BLOCKS`.
        arena: Where the weight goes.

    Raises:
        ValueError: A factor is NaN or infinite.
    """
    one, (inputs, nbytes) = BLOCKS[kind], GGML_QUANT_SIZES[kind]
    packed = one.room(len(rows), rows.shape[1] // nbytes * inputs, arena)
    pack(kind.name.lower(), rows, nbytes, packed.data, one.nbytes)
    factors = one.views(packed.data)
    if kind is Kind.Q4_0:
        factors["minima"].copy_(-8 * factors["scales"])
    if not all(factors[name].isfinite().all() for name in one.factors):
        raise ValueError("a weight holds NaN or infinite values")
    return packed
