"""Random blocks of GGUF files."""

import torch
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind

HALVES = {Kind.Q4_0: 1, Kind.Q4_1: 2, Kind.Q5_0: 1, Kind.Q5_1: 2, Kind.Q8_0: 1, Kind.Q4_K: 2, Kind.Q5_K: 2}
"""Factors in 16 bits at the beginning of a block. Q6_K has one at the end."""


def random_blocks(kind, outputs, inputs):
    """Rows of a file, [outputs, bytes] uint8: all integers happen, and weights are of the size of models'."""
    size, nbytes = GGML_QUANT_SIZES[kind]
    blocks = torch.randint(256, (outputs, inputs // size, nbytes), dtype=torch.uint8)
    count = HALVES.get(kind, 1)
    factors = (torch.randn(*blocks.shape[:2], count) / 1000).half().view(torch.uint8)
    if kind is Kind.Q6_K:
        blocks[..., -2:] = factors
    else:
        blocks[..., : 2 * count] = factors
    return blocks.flatten(1)
