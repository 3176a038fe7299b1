"""Linear recurrences over the tokens of packed rows: the gated delta rule and selective state spaces.

Both decay a matrix by a factor and add an outer product for each token, and read it with a query. One scan
serves them (Gated DeltaNet, arXiv:2412.06464, equation 10; Mamba-2, arXiv:2405.21060, section 3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.kernels.scan import ScanRows, scan_rows
from langchain_eft.engine.kernels.target import can_compile
from langchain_eft.engine.recurrence.rows import RecurrentRows
from langchain_eft.engine.recurrence.state_pool import MOST_REPLAYED, ScanMemory


class ScanInputs(NamedTuple):
    """What a scan reads of N tokens, all float32.

    Attributes:
        query: [N, key_heads, key_dim].
        key: [N, key_heads, key_dim]; a key head serves heads / key_heads adjacent heads.
        value: [N, heads, value_dim].
        decay: [N, heads, 1 or key_dim], factor on the state before a token.
        rate: [N, heads], how far the delta rule replaces what the state says of a key, or None to add values.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    decay: Tensor
    rate: Tensor | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of what `stored` has side by side: key, value, decay and rate."""
        parts = self.key, self.value, self.decay
        return *(part[0].numel() for part in parts), 0 if self.rate is None else self.rate.shape[1]

    def stored(self) -> Tensor:
        """[N, size], all but the query, which a token needs only once."""
        parts = [self.key.flatten(1), self.value.flatten(1), self.decay.flatten(1)]
        return torch.cat(parts if self.rate is None else [*parts, self.rate], 1)


def scan(inputs: ScanInputs, rows: RecurrentRows, layer: int) -> Tensor:
    """Run each row from its state on, and keep the state behind its final tokens.

    For each token: S = decay * S; u = rate * (value - key S), or the value itself; S = S + key u; the result
    is query S. A result is one sum in one order, whatever is computed beside it.

    Args:
        inputs: Of N tokens.
        rows: The rows.
        layer: Number of the layer.

    Returns:
        [N, heads, value_dim] float32.
    """
    stored = inputs.stored()
    memory = rows.pool.scan(layer, inputs.value.shape[1], inputs.key.shape[2], inputs.value.shape[2], stored)
    if stored.device.type == "cpu" and can_compile():
        of_rows = ScanRows(*rows.numbers)
        parts = memory.states, memory.ends, memory.inputs
        results = scan_rows(inputs.query, stored, inputs.sizes, inputs.value.shape[1], of_rows, parts)
    else:
        results = scan_by_steps(inputs, stored, rows, memory)
    memory.ends.index_copy_(0, rows.slots, rows.final)
    memory.inputs.flatten(0, 1).index_copy_(0, rows.kept_at(MOST_REPLAYED), stored)
    return results


def scan_by_steps(inputs: ScanInputs, stored: Tensor, rows: RecurrentRows, memory: ScanMemory) -> Tensor:
    """The definition of `scan`, one token of each row after another; writes the states alone."""
    heads, value_dim = inputs.value.shape[1:]
    key_heads, key_dim = inputs.key.shape[1:]
    repeated = heads // key_heads
    begin = torch.where(rows.positions > 0, memory.ends[rows.slots], 0)
    state = torch.where((begin > 0)[:, None, None, None], memory.states[rows.slots], 0)
    kept, earlier = state, memory.inputs.flatten(0, 1)
    results = inputs.value.new_zeros(len(stored) + 1, heads, value_dim)
    for step in range(rows.most_steps):
        at = begin + step
        is_new, runs = at >= rows.positions, at < rows.ends
        packed = (rows.starts + at - rows.positions).clamp(0, len(stored) - 1)
        numbers = torch.where(
            is_new[:, None], stored[packed], earlier[rows.slots * MOST_REPLAYED + at % MOST_REPLAYED]
        )
        keys, values, decay, rate = torch.split(numbers, list(inputs.sizes), 1)
        key = keys.view(-1, key_heads, key_dim).repeat_interleave(repeated, 1)[..., None]
        query = inputs.query[packed].repeat_interleave(repeated, 1)[..., None]
        decayed = state * decay.view(len(at), heads, -1, 1)
        update = values.view(-1, heads, value_dim)
        if inputs.rate is not None:
            update = (update - (decayed * key).sum(2)) * rate[..., None]
        state = torch.where(runs[:, None, None, None], decayed + key * update[:, :, None], state)
        kept = torch.where((at < rows.final)[:, None, None, None], state, kept)
        results[torch.where(runs & is_new, packed, len(stored))] = (state * query).sum(2)
    memory.states.index_copy_(0, rows.slots, kept)
    return results[:-1]
