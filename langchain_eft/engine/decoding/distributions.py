"""The distributions p and q: weighted sums of logits, with gates and limits to the up-scaling."""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

import torch
from torch import Tensor

from langchain_eft.engine.decoding.formula import Formula, combine, conservative
from langchain_eft.engine.decoding.formula_table import SUMS, Columns
from langchain_eft.engine.decoding.gates import add_gated, measures, open_gates
from langchain_eft.engine.models.family import ModelFamily, Term


class Distributions:
    """p and q of formulas, each at R positions.

    N computed logits, V token ids. T terms of a formula, in the order of its row in a `FormulaTable`.

    Args:
        family: The models.
        gates: G, most gates of a formula.
        upscales_some: Whether some formula up-scales some tokens only.
        nucleus: Whether some formula up-scales inside a nucleus only.
    """

    def __init__(self, family: ModelFamily, *, gates: int, upscales_some: bool, nucleus: bool) -> None:
        self._vocabulary, self._unscaled = family.vocabulary, family.unscaled
        self._gates, self._upscales_some, self._nucleus = gates, upscales_some, nucleus

    @classmethod
    def of(cls, family: ModelFamily, formulas: Collection[Formula[Term]]) -> Self:
        """Those of given formulas."""
        return cls(
            family,
            gates=max(len(formula.gates) for formula in formulas),
            upscales_some=any(formula.conservative for formula in formulas),
            nucleus=any(formula.has_nucleus for formula in formulas),
        )

    def target(
        self, logits: Tensor, entry: Tensor, columns: Columns, coefficients: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Log p.

        Args:
            logits: [N, V].
            entry: [R, T] int64, which logits each term has; any others where its coefficient is 0.
            columns: R rows of the table.
            coefficients: [R, sums, T] float32, of the terms in the `SUMS`.

        Returns:
            [R, V] log p up to a constant; and, if a formula has gates, [R, G] which of them are open.
        """
        opened = self._opened(logits, entry, columns) if self._gates else None
        gated = None if opened is None else (opened, columns["gated"][:, : self._gates, : entry.shape[1]])
        logp = self._sum("target", logits, entry, coefficients, gated)
        if not self._upscales_some:
            return logp, opened
        normalizers = logits.masked_fill(~self._vocabulary, float("-inf")).logsumexp(-1, keepdim=True)
        unscaled = None
        if self._unscaled is not None:
            unscaled = (columns["unscaled"] != 0)[:, None] & self._unscaled
        restricted = conservative(
            self._sum("small", logits, entry, coefficients, gated),
            self._sum("upscale", logits - normalizers, entry, coefficients),
            columns["upscale_top_p"] if self._nucleus else None,
            unscaled,
        )
        return torch.where((columns["conservative"] != 0)[:, None], restricted, logp), opened

    def draft(self, logits: Tensor, entry: Tensor, coefficients: Tensor) -> Tensor:
        """[R, V] log q up to a constant; `entry` may have a formula's first terms only, those that draft."""
        return self._sum("draft", logits, entry, coefficients)

    def _sum(
        self,
        name: str,
        logits: Tensor,
        entry: Tensor,
        coefficients: Tensor,
        gated: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """[R, V] one of the `SUMS`, with what open gates add; -inf for ids that some model lacks."""
        weights = coefficients[:, SUMS.index(name), : entry.shape[1]]
        if gated is not None:
            weights = add_gated(weights, *gated)
        return combine(logits, entry, weights, self._vocabulary)

    def _opened(self, logits: Tensor, entry: Tensor, columns: Columns) -> Tensor:
        base = logits[entry.gather(1, columns["base"][:, None])[:, 0]]
        return open_gates(
            measures(base, self._vocabulary),
            columns["gate_measure"][:, : self._gates],
            columns["gate_threshold"][:, : self._gates],
            columns["gate_below"][:, : self._gates] != 0,
        )
