"""What rounds share on the device, where their rows stand, and at which positions they draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.rounds.cuda_graphs import Streams
from langchain_eft.engine.rounds.shape import RoundShape


class RoundState:
    """What all rounds share on the device.

    Attributes:
        family: The models.
        pools: Their KV memory.
        num_blocks: Blocks of one variant.
        block_size: Positions per block.
        device: Where logits are combined.
        streams: For models that run side by side.
        last: [rows] int64, last token of each row of the last round.
        num_output_tokens: [rows] int64, tokens of its answer.
    """

    def __init__(
        self, family: ModelFamily, pools: Sequence[KVPool], num_blocks: int, block_size: int, rows: int
    ) -> None:
        self.family = family
        self.pools = pools
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.device = family.vocabulary.device
        self.streams = Streams(self.device)
        self.last, self.num_output_tokens = torch.zeros(2, rows, dtype=torch.int64, device=self.device)


class Positions:
    """The R positions of a round at which tokens are drawn, among the K + 1 of each of B rows.

    Args:
        shape: The round's.
        live: [R] int64, indexes among B * (K + 1); None for all of them.
    """

    def __init__(self, shape: RoundShape, live: Tensor | None = None) -> None:
        self.live = live
        self._rows, self._per_row = shape.rows, shape.positions

    def select(self, values: Tensor) -> Tensor:
        """[B * (K + 1), ...] to [R, ...]."""
        return values if self.live is None else values[self.live]

    def repeat(self, values: Tensor) -> Tensor:
        """[B, ...] to [R, ...]: the value of a row at each of its positions."""
        if self.live is None:
            return values.repeat_interleave(self._per_row, 0)
        return values[self.live // self._per_row]

    def by_position(self, values: Tensor) -> Tensor:
        """[S, B, K + 1] to [R, S]."""
        flat = values.flatten(1)
        return (flat if self.live is None else flat[:, self.live]).t()

    def by_row(self, values: Tensor, padding: int) -> Tensor:
        """[R] to [B, K + 1], with `padding` where no token is drawn."""
        if self.live is None:
            return values.view(self._rows, -1)
        padded = values.new_full((self._rows * self._per_row,), padding)
        return padded.index_copy_(0, self.live, values).view(self._rows, -1)
