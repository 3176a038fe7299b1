"""The rounds of a runner, one for each shape, least recently used first to go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from langchain_eft.engine.rounds.decoding_round import DecodingRound
from langchain_eft.engine.rounds.shape import RoundShape

R = TypeVar("R", bound=DecodingRound)

MAX_SHAPES = 256
"""Most rounds that a runner keeps."""


class RoundCache(Generic[R]):
    """Makes the round of a shape when it is first asked for, and keeps the latest 256.

    Args:
        make: Makes the round of a shape.
        on_evict: Called with the shape of a round that is dropped.
    """

    def __init__(
        self, make: Callable[[RoundShape], R], on_evict: Callable[[RoundShape], None] = lambda _: None
    ) -> None:
        self._make, self._on_evict = make, on_evict
        self._rounds: OrderedDict[RoundShape, R] = OrderedDict()

    def __getitem__(self, shape: RoundShape) -> R:
        if shape not in self._rounds:
            self._rounds[shape] = self._make(shape)
        self._rounds.move_to_end(shape)
        if len(self._rounds) > MAX_SHAPES:
            self._on_evict(self._rounds.popitem(last=False)[0])
        return self._rounds[shape]
