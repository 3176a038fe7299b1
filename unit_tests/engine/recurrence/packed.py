"""Rows of a packed batch that a test walks through: with drafts that are rejected, in chunks of any size."""

import torch

from langchain_eft.engine.recurrence.rows import RecurrentRows
from langchain_eft.engine.recurrence.state_pool import MOST_REPLAYED, StatePool


def passes(length: int, rng: torch.Generator) -> list[tuple[int, int, int]]:
    """Passes over one text: position, tokens, and how many of the text are final. Some tokens run twice."""
    found, position = [], 0
    while position < length:
        count = int(torch.randint(1, 40, (1,), generator=rng))
        count = min(count, length - position)
        if count > MOST_REPLAYED:
            found.append((position, count, position + count))
            position += count
        else:
            found.append((position, count, position))
            position += int(torch.randint(1, count + 1, (1,), generator=rng))
    return found


def batch(pool: StatePool, slots, parts, num_tokens: int | None = None) -> RecurrentRows:
    """Rows of a pass, one after another.

    Args:
        pool: The states.
        slots: Of each row.
        parts: Position, tokens and final tokens of each row.
        num_tokens: Length of the packed axis; the sum by default.
    """
    position, count, final = torch.tensor(parts).t()
    starts = count.cumsum(0) - count
    total = num_tokens or int(count.sum())
    return RecurrentRows.of(
        pool, torch.tensor(slots), starts, count, position, final, total, int(count.max())
    )
