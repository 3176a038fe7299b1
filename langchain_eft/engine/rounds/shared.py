"""What all rounds share on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.recurrence.state_pool import StatePool
from langchain_eft.engine.rounds.cuda_graphs import Streams
from langchain_eft.engine.rounds.row_table import RowTable
from langchain_eft.engine.scheduling.prompt_state import PromptState


class Shared:
    """What all rounds share on the device.

    Attributes:
        family: The models.
        pools: Their KV memory.
        states: Their recurrent states, where they have such.
        num_blocks: Blocks of one variant.
        block_size: Positions per block.
        device: Where logits are combined.
        host_may_look: Whether the host may read values in the midst of a round. On a CPU that is free. A GPU
            would wait for it, and what it runs could not be recorded.
        activates: Whether a model has adapters that read blocks of the model itself.
        table: What the device knows of each request.
        streams: For models that run side by side.

    Args:
        family: The models.
        pools: Their KV memory.
        states: See above.
        num_blocks: Blocks of one variant.
        block_size: Positions per block.
        max_batch_size: Most rows of a round.
        host_may_look: See above.
    """

    def __init__(
        self,
        family: ModelFamily,
        pools: Sequence[KVPool],
        states: Sequence[StatePool | None],
        num_blocks: int,
        block_size: int,
        max_batch_size: int,
        *,
        host_may_look: bool,
    ) -> None:
        self.family, self.pools, self.states = family, pools, states
        self.num_blocks, self.block_size = num_blocks, block_size
        self.device = family.vocabulary.device
        self.host_may_look = host_may_look
        self.activates = any(model.invocations for model in family.models)
        self.num_slots = max((each.num_slots for each in states if each), default=0)
        self.table = RowTable(
            family, max_batch_size, num_blocks, block_size, self.device, num_slots=self.num_slots
        )
        self.streams = Streams(self.device)
        self._logits = torch.zeros(0, device=self.device)

    def state_slot(self, prompt: PromptState, variant: int) -> int:
        """Where a variant keeps its recurrent state of a prompt."""
        return (prompt.state_slot or 0) + variant * self.num_slots

    def logits(self, count: int) -> Tensor:
        """[count, V] float32, any numbers, at a fixed address. Rounds follow each other, so all share it."""
        size = count * len(self.family.vocabulary)
        if self._logits.numel() < size:
            self._logits = torch.zeros(size, device=self.device)
        return self._logits[:size].view(count, -1)
