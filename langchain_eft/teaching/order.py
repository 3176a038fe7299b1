"""The order in which examples are learned: at random, in batches of similar length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, list[int]]

BATCHES_TOGETHER = 50
"""Batches whose examples are sorted together. More pad less, and mix less."""


def ordered(rows: Sequence[Row], batch_size: int, steps: int, seed: int) -> list[Row]:
    """The rows of every step, one step after the other; each row occurs once before any occurs again.

    A batch is padded to its longest row, so rows of similar length stand together. The batches themselves are
    in random order.

    Args:
        rows: Examples as token ids.
        batch_size: Rows of one step.
        steps: Number of steps.
        seed: Of the order.
    """
    endless = _epochs(rows, batch_size, random.Random(seed))
    return [next(endless) for _ in range(steps * batch_size)]


def _epochs(rows: Sequence[Row], batch_size: int, r: random.Random) -> Iterator[Row]:
    while True:
        shuffled = r.sample(rows, len(rows))
        size = batch_size * BATCHES_TOGETHER
        batches: list[list[Row]] = []
        for start in range(0, len(shuffled), size):
            similar = sorted(shuffled[start : start + size], key=_length)
            batches += [similar[i : i + batch_size] for i in range(0, len(similar), batch_size)]
        # A batch that is not full comes last, so that no other batch is torn apart.
        full = [batch for batch in batches if len(batch) == batch_size]
        rest = [row for batch in batches if len(batch) < batch_size for row in batch]
        r.shuffle(full)
        for batch in (*full, rest):
            yield from batch


def _length(row: dict[str, Any]) -> int:
    """Tokens of all parts of a row."""
    return sum(map(len, row.values()))
