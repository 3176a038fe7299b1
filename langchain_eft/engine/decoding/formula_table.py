"""Formulas as numbers that a device reads: a row for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from langchain_eft.engine.decoding.coefficients import CoefficientTable
from langchain_eft.engine.decoding.formula import Formula
from langchain_eft.engine.decoding.gates import GateNumbers
from langchain_eft.engine.decoding.mirrored_rows import MirroredRows
from langchain_eft.engine.models.family import ModelFamily, Term

SUMS = ("target", "draft", "small", "upscale")
"""The sums of a formula, as `formula.Coefficients` names them."""

Shapes = Mapping[str, tuple[int, ...]]
"""Columns of a table, and the shape of each in a row."""

_Places = Mapping[str, tuple[int, int, tuple[int, ...]]]
"""By name of a column: which block of numbers has it, where it begins there, and its shape in a row."""


def terms_in_order(formula: Formula[Term]) -> list[Term]:
    """The terms of a formula as its row has them: those that draft come first."""
    return list(dict.fromkeys([*formula.draft_terms, *formula.terms]))


def most_terms(family: ModelFamily) -> int:
    """T, most terms that a formula of some models has."""
    # The base, each behavior's two terms, and its reference on the base's prompt.
    return 1 + 3 * len(family.behaviors)


class Columns:
    """Some rows of a table: `columns[name]` is [R, ...], and contiguous if it is [R]."""

    def __init__(self, places: _Places, numbers: Sequence[Tensor]) -> None:
        self._places, self._numbers = places, numbers  # [columns, R]

    def __getitem__(self, name: str) -> Tensor:
        block, start, shape = self._places[name]
        numbers = self._numbers[block]
        if not shape:
            return numbers[start]
        return numbers[start : start + prod(shape)].view(*shape, -1).movedim(-1, 0)

    def take(self, rows: Tensor) -> Columns:
        """The columns of [R'] int64 of these rows."""
        return Columns(self._places, [numbers.index_select(1, rows) for numbers in self._numbers])


class FormulaTable:
    """Formulas as numbers that a device reads: a row for each.

    Attributes:
        num_terms: T, most terms of a row.
        coefficients: Of the `SUMS`, over a row's own terms.

    Args:
        family: The models.
        rows: Most formulas.
        device: Where logits are combined.
        integers: What else a row has, as integers.
        reals: What else a row has, as real numbers.
    """

    def __init__(
        self,
        family: ModelFamily,
        rows: int,
        device: torch.device,
        integers: Shapes | None = None,
        reals: Shapes | None = None,
    ) -> None:
        behaviors = len(family.behaviors)
        self.num_terms, gates = most_terms(family), max(1, behaviors)
        own_integers = dict.fromkeys(("base", "num_draft_terms", "conservative", "unscaled"), ())
        of_gates = {"gate_measure": (gates,), "gate_below": (gates,)}
        own_reals = {"upscale_top_p": (), "gate_threshold": (gates,), "gated": (gates, self.num_terms)}
        blocks: list[Shapes] = [
            {**own_integers, **of_gates, **(integers or {})},
            {**own_reals, **(reals or {})},
        ]
        self._places = _places(blocks)
        self._numbers = [
            MirroredRows(torch.zeros(sum(map(prod, shapes.values())), rows, dtype=dtype), device, dim=1)
            for shapes, dtype in zip(blocks, (torch.int64, torch.float32), strict=True)
        ]
        # A weight has two segments at most.
        self.coefficients = CoefficientTable(rows, len(SUMS), self.num_terms, 2 * behaviors, device)

    def columns(self, rows: Tensor) -> Columns:
        """The columns of [R] int64 rows, on the device."""
        return Columns(self._places, [each.device.index_select(1, rows) for each in self._numbers])

    def flush(self) -> None:
        """Send what has changed to the device."""
        for each in (*self._numbers, self.coefficients.rows):
            each.flush()

    def write(self, row: int, formula: Formula[Term]) -> None:
        """Give a row to a formula. What else the row has is zero afterwards."""
        for numbers in self._numbers:
            numbers.host[:, row] = 0
            numbers.touch(row)
        terms, gates = terms_in_order(formula), [GateNumbers.of(each.gate) for each in formula.gates]
        added = [self._in_order(each.added, terms) for each in formula.gates]
        columns: dict[str, list[float]] = {
            "base": [terms.index(formula.base) if formula.base in terms else 0],  # which of its terms is L
            "num_draft_terms": [len(formula.draft_terms)],  # they are a row's first terms
            "conservative": [formula.conservative],
            "unscaled": [formula.unscaled],
            "upscale_top_p": [formula.upscale_top_p],
            "gated": [weight for weights in added for weight in weights],
            **{f"gate_{name}": [getattr(gate, name) for gate in gates] for name in GateNumbers._fields},
        }
        for name, values in columns.items():
            self._set(row, name, values)
        at_knots = [
            [self._in_order(getattr(formula.at(knot), name) or (), terms) for name in SUMS]
            for knot in formula.knots
        ]
        self.coefficients.set(row, formula.knots, torch.tensor(at_knots, dtype=torch.float64))

    def _set(self, row: int, name: str, values: Sequence[float]) -> None:
        block, start, _ = self._places[name]
        host = self._numbers[block].host
        host[start : start + len(values), row] = torch.tensor(values, dtype=host.dtype)

    def _in_order(self, total: Sequence[tuple[Term, float]], terms: Sequence[Term]) -> list[float]:
        """[T] the coefficients of a sum, for terms in a given order, and zeros."""
        weights = dict(total)
        return [weights.get(term, 0.0) for term in terms] + [0.0] * (self.num_terms - len(terms))


def _places(blocks: Sequence[Shapes]) -> _Places:
    places: dict[str, tuple[int, int, tuple[int, ...]]] = {}
    for block, shapes in enumerate(blocks):
        start = 0
        for name, shape in shapes.items():
            places[name] = block, start, shape
            start += prod(shape)
    return places
