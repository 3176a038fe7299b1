"""Coefficients that change along an answer, evaluated where the logits are.

They are piecewise linear in the position of a token in its answer (`recipe.schedules`). So a request has them
at position 0, and how much they change between two knots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langchain_eft.engine.decoding.mirrored_rows import MirroredRows


class CoefficientTable:
    """The coefficients of several sums over T terms, for all requests.

    Args:
        rows: Most requests.
        sums: Number of sums.
        terms: T.
        segments: Most segments between knots that a request may have.
        device: Where the coefficients are read.
    """

    def __init__(self, rows: int, sums: int, terms: int, segments: int, device: torch.device) -> None:
        self._segments, self._shape = segments, (sums, terms)
        self._size = sums * terms
        # In float64, as the formula computes them: at position 0, changes, begin and length of segments.
        values = torch.zeros(rows, self._size * (1 + segments) + 2 * segments, dtype=torch.float64)
        values[:, values.shape[1] - segments :] = 1
        self.rows = MirroredRows(values, device)

    def set(self, row: int, knots: Sequence[int], at_knots: Tensor) -> None:
        """Give a row to a request.

        Args:
            row: Which.
            knots: Positions between which its coefficients are linear, from 0 on.
            at_knots: [knots, sums, T] float64, the coefficients there.
        """
        size, count = self._size, len(knots) - 1
        values = at_knots.flatten(1)
        first, changes, begin, length = torch.split(
            self.rows.host[row], [size, size * self._segments, self._segments, self._segments]
        )
        first[:], changes[:], begin[:], length[:] = values[0], 0, 0, 1
        if count:
            positions = torch.tensor(knots, dtype=torch.float64)
            changes[: size * count] = values.diff(dim=0).flatten()
            begin[:count], length[:count] = positions[:-1], positions.diff()
        self.rows.touch(row)

    def at(self, rows: Tensor, positions: Tensor, *, change: bool) -> Tensor:
        """[R, sums, T] float32, the coefficients of requests at positions of their answers.

        Args:
            rows: [R] int64.
            positions: [R] int64, counted from 0.
            change: Whether the coefficients of some of these requests change with the position.
        """
        size, segments, device = self._size, self._segments, self.rows.device
        if not (change and segments):
            return device[:, :size].index_select(0, rows).float().view(-1, *self._shape)
        first, changes, begin, length = torch.split(
            device.index_select(0, rows), [size, size * segments, segments, segments], 1
        )
        done = ((positions[:, None] - begin) / length).clamp(0, 1)
        values = first + (done[..., None] * changes.reshape(-1, segments, size)).sum(1)
        return values.float().view(-1, *self._shape)
