"""log p of given formulas, at any position of an answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langchain_eft.engine.decoding.distributions import Distributions
from langchain_eft.engine.decoding.formula import Formula
from langchain_eft.engine.decoding.formula_table import FormulaTable
from langchain_eft.engine.models.family import ModelFamily, Term


class Target:
    """p of given formulas, as decoding has it.

    Args:
        family: The models.
        formulas: At least one.
    """

    def __init__(self, family: ModelFamily, formulas: Sequence[Formula[Term]]) -> None:
        rows = {formula: row for row, formula in enumerate(dict.fromkeys(formulas))}
        self._device = family.vocabulary.device
        self._row_of = [rows[formula] for formula in formulas]
        self._distributions = Distributions.of(family, rows)
        self._table = FormulaTable(family, len(rows), self._device)
        for formula, row in rows.items():
            self._table.write(row, formula)
        self._table.flush()

    def logprobs(
        self,
        logits: Tensor,
        entry: Sequence[Sequence[int]],
        formulas: Sequence[int],
        lengths: Sequence[int],
    ) -> Tensor:
        """Log p at R positions.

        Args:
            logits: [N, V].
            entry: Of each position, which logits each term of its formula has, in `terms_in_order`.
            formulas: Of each position, the number of its formula.
            lengths: Of each position, the tokens of the answer before it.

        Returns:
            [R, V] log p, before penalties, temperature and filters.
        """
        width = max(map(len, entry))
        # In place of terms that a formula lacks stands its first one.
        padded = [[*row, *[row[0]] * (width - len(row))] for row in entry]
        rows = torch.tensor([self._row_of[formula] for formula in formulas], device=self._device)
        logp, _ = self._distributions.target(
            logits,
            torch.tensor(padded, device=self._device),
            self._table.columns(rows),
            self._table.coefficients.at(rows, torch.tensor(lengths, device=self._device), change=True),
        )
        return logp.log_softmax(-1)
