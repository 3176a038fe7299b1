"""The factors of all requests of a batch, on the host and on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from langchain_eft.engine.decoding.coefficients import CoefficientTable
from langchain_eft.engine.decoding.formula import Formula
from langchain_eft.engine.decoding.mirrored_rows import MirroredRows


@dataclass(frozen=True)
class Factors:
    """The factors of R rows of logits. `conservative` of the two sums, normalized, is log p.

    Attributes:
        small: [R, M], of each term's logits in the small mixture. In log p itself where `upscale` is None,
            and in rows whose `upscale` is 0.
        upscale: [R, M], of each term's log-probabilities in the logarithm of the up-scaling weight. None if
            all tokens of all rows have the same weight.
        upscale_top_p: [R], the nucleus inside which tokens are up-scaled. None if `upscale` is.
    """

    small: Tensor
    upscale: Tensor | None
    upscale_top_p: Tensor | None


class FactorTable:
    """A slot for each request. The runner's hooks fill slots, and say which slots the rows of a step have.

    Args:
        terms: Names of the models, in the order of all factors.
        segments: Most segments that a formula may have.
        slots: Number of slots.
        default: The formula of slots that no request has had.
        device: Where logits are combined.
        owner: What the table belongs to; it lives as long as the table.
    """

    def __init__(
        self,
        terms: Sequence[str],
        segments: int,
        slots: int,
        default: Formula[str],
        device: torch.device,
        owner: object = None,
    ) -> None:
        self._owner = owner
        self._index = {term: i for i, term in enumerate(terms)}
        self._formulas = [default] * slots
        self._coefficients = CoefficientTable(slots, 2, len(terms), segments, device)
        # Tokens of the prompt, and the nucleus inside which tokens are up-scaled.
        self._numbers = MirroredRows(torch.zeros(slots, 2), device)
        for slot in range(slots):
            self.set(slot, default, 0)
        self._rows: Tensor | None = None
        # The run that measures memory comes before any request: it gets the most expensive kind of formula.
        self._conservative, self._scheduled = True, True

    def set(self, slot: int, formula: Formula[str], prompt_tokens: int) -> None:
        """Give a slot to a request.

        Args:
            slot: Index of the slot.
            formula: The request's formula.
            prompt_tokens: Length of its prompt.
        """
        self._formulas[slot] = formula
        at_knots = torch.stack([self._at(formula, knot) for knot in formula.knots])
        self._coefficients.set(slot, formula.knots, at_knots)
        self._numbers.host[slot] = torch.tensor([prompt_tokens, formula.upscale_top_p])
        self._numbers.touch(slot)

    def move(self, source: int, target: int) -> None:
        """Copy one slot to another."""
        self._formulas[target] = self._formulas[source]
        for rows in (self._coefficients.rows, self._numbers):
            rows.host[target] = rows.host[source]
            rows.touch(target)

    def swap(self, first: int, second: int) -> None:
        """Exchange two slots."""
        formulas = self._formulas
        formulas[first], formulas[second] = formulas[second], formulas[first]
        for rows in (self._coefficients.rows, self._numbers):
            rows.host[[first, second]] = rows.host[[second, first]]
            rows.touch(first, second)

    def flush(self) -> None:
        """Copy the slots that changed to the device."""
        self._coefficients.rows.flush()
        self._numbers.flush()

    def begin_step(self, slots: Iterable[int], rows: Tensor | None) -> None:
        """Say which requests a step has.

        Args:
            slots: Their slots.
            rows: [R] slot of each row of logits, on the device. None if row i has slot i.
        """
        formulas = [self._formulas[slot] for slot in slots]
        self._conservative = any(formula.conservative for formula in formulas)
        self._scheduled = any(len(formula.knots) > 1 for formula in formulas)
        self._rows = rows

    def factors(self, positions: Tensor) -> Factors:
        """The factors of a step's rows.

        Args:
            positions: [R] position of the last token that each row has read, in prompt and answer.
        """
        rows, count = self._rows, len(positions)
        if rows is None:
            rows = torch.arange(count, device=positions.device)
            if count > len(self._formulas):  # only dummy runs have so many
                rows = torch.zeros_like(rows)
        elif len(rows) != count:
            raise RuntimeError(f"{count} rows of logits in a step of {len(rows)}.")
        prompt_tokens, top_p = self._numbers.device[rows].unbind(1)
        answer = (positions + 1 - prompt_tokens).clamp(min=0)
        small, upscale = self._coefficients.at(rows, answer, change=self._scheduled).unbind(1)
        if not self._conservative:
            return Factors(small, None, None)
        return Factors(small, upscale, top_p)

    def _at(self, formula: Formula[str], position: int) -> Tensor:
        """[2, M] float64, the factors of the small mixture and of the up-scaling weight."""
        coefficients = formula.at(position)
        values = torch.zeros(2, len(self._index), dtype=torch.float64)
        sums = (coefficients.small or coefficients.target, coefficients.upscale or ())
        for row, total in enumerate(sums):
            for term, factor in total:
                values[row, self._index[term]] = factor
        return values
