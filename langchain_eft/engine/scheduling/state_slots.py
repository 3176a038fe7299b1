"""Slots of recurrent state: one for each prompt that runs, and some that keep the states of prefixes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from langchain_eft.engine.recurrence.state_pool import StatePool


class StateSlots:
    """Hands out slots of recurrent state, and keeps those behind prefixes that later prompts may share.

    Keys and values are cached block by block. A recurrent state is worth many blocks, so one is kept only
    where a pass over a prompt has ended. A prefix is reused up to the last such place.

    Args:
        pools: The states of the models, with `num_slots` slots of each variant. Slots that no prompt uses
            keep states, least recently used first to go.
        num_slots: How many.
    """

    def __init__(self, pools: Sequence[StatePool], num_slots: int) -> None:
        self._pools = pools
        self._free = list(range(num_slots))
        self._kept: OrderedDict[bytes, int] = OrderedDict()

    def reusable(self, keys: Sequence[bytes]) -> int:
        """How many of the blocks at the beginning of a prompt can be reused, by their keys."""
        return next((count for count in range(len(keys), 0, -1) if keys[count - 1] in self._kept), 0)

    def take(self, key: bytes | None) -> int:
        """A slot for a prompt, with the state that is kept under a key."""
        source = None if key is None else self._kept[key]
        if key is not None:
            self._kept.move_to_end(key)
        slot = self._take()
        if source is not None:
            self._copy(source, slot)
        return slot

    def give_back(self, slot: int) -> None:
        """Give back a prompt's slot."""
        self._free.append(slot)

    def keep(self, key: bytes, slot: int) -> None:
        """Keep a copy of the state in a prompt's slot, if there is room beside the prompts."""
        if key in self._kept:
            self._kept.move_to_end(key)
        elif self._free or self._kept:
            copy = self._take()
            self._copy(slot, copy)
            self._kept[key] = copy

    def _take(self) -> int:
        return self._free.pop() if self._free else self._kept.popitem(last=False)[1]

    def _copy(self, source: int, target: int) -> None:
        for pool in self._pools:
            pool.copy(source, target)
