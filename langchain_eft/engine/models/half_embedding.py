"""Embeddings in half precision, whose vectors are float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from langchain_eft.engine.models.finite import all_finite


class HalfEmbedding(nn.Embedding):
    """An embedding matrix in 16 bits. Only the vectors that are looked up become float32.

    The matrix is a buffer, because transformers takes the type of the first parameter for that of the
    activations.
    """

    def __init__(self, weight: Tensor) -> None:
        """Take over a [V, hidden] bfloat16 or float16 matrix."""
        super().__init__(weight.shape[0], weight.shape[1], device="meta")
        del self.weight
        self.register_buffer("weight", weight)

    def forward(self, ids: Tensor) -> Tensor:
        """[...] int64 ids to [..., hidden] float32 vectors."""
        return F.embedding(ids, self.weight).float()


def half_matrix(weight: Tensor) -> Tensor | None:
    """A copy of a matrix in 16 bits, or None if that would change a value or values are NaN or infinite."""
    weight = weight.detach()
    if not all_finite(weight):
        return None
    for dtype in (torch.bfloat16, torch.float16):
        half = weight.to(dtype, copy=True)  # the original may be mapped into memory with its whole file
        if weight.dtype == dtype or torch.equal(half.float(), weight.float()):
            return half
    return None
