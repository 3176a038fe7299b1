"""Causal convolutions of each channel over the tokens of packed rows."""

from __future__ import annotations

import torch
from torch import Tensor

from langchain_eft.engine.recurrence.rows import RecurrentRows


def convolve(x: Tensor, weight: Tensor, rows: RecurrentRows, layer: int) -> Tensor:
    """Convolve each row with what came before it, and remember its last tokens.

    A result is one sum in one order, whatever is computed beside it.

    Args:
        x: [N, channels] inputs.
        weight: [channels, width]; the last column belongs to a token itself.
        rows: The rows.
        layer: Number of the layer.

    Returns:
        [N, channels] float32.
    """
    x, weight, reach = x.float(), weight.float(), weight.shape[1] - 1
    memory = rows.pool.window(layer, reach, x)
    size = memory.shape[1]
    back = rows.positions[:, None] - torch.arange(reach, 0, -1, device=x.device)
    before = memory[rows.slots[:, None], back % size].masked_fill((back < 0)[..., None], 0)
    inputs = torch.cat([x, before.flatten(0, 1)])
    row, offset, _, _ = rows.tokens
    result = torch.zeros_like(x)
    for tap in range(reach + 1):
        ago = reach - tap
        earlier = rows.num_tokens + row * reach + reach + offset - ago
        at = torch.where(offset >= ago, rows.starts[row] + offset - ago, earlier)
        result += inputs[at] * weight[:, tap]
    memory.flatten(0, 1).index_copy_(0, rows.kept_at(size), x)
    return result
