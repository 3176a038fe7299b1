"""One round on the device: run every model over the scheduled rows, combine, sample."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from langchain_eft.engine.formula import combine, conservative
from langchain_eft.engine.kv_cache import KVPool, token_slots
from langchain_eft.engine.linear import product
from langchain_eft.engine.models import ModelFamily, Term, pack
from langchain_eft.engine.sampling import sample
from langchain_eft.engine.scheduler import ScheduledRow
from langchain_eft.engine.sequence import Sequence

Outputs = dict[tuple[Sequence, Term], int]
"""Where each (sequence, term) stands among the rows of the stacked logits."""


class Runner:
    """Lockstep decoding: all terms of a row see the same tokens at the same positions."""

    def __init__(self, family: ModelFamily, num_blocks: int, block_size: int) -> None:
        self._family = family
        self._block_size = block_size
        self._variant_slots = num_blocks * block_size
        self._device = family.vocabulary.device
        self._pools = [KVPool(model.variants * self._variant_slots) for model in family.models]

    @torch.inference_mode()
    def step(self, rows: Rows[ScheduledRow]) -> list[int]:
        """Compute the rows' tokens.

        Returns:
            The next token of each row that emits, in order.
        """
        emitting = [row.sequence for row in rows if row.emits]
        logits, outputs = self._run_models(rows)
        for row in rows:
            row.sequence.computed += row.count
        if not emitting:
            return []
        target = self._combine(logits, outputs, emitting)
        target = target.masked_fill(~self._family.vocabulary, float("-inf"))
        tokens: list[int] = sample(target, [sequence.sampling for sequence in emitting]).tolist()
        return tokens

    def _run_models(self, rows: Rows[ScheduledRow]) -> tuple[Tensor, Outputs]:
        """Logits of every term of every emitting row, [N, V], and where they stand."""
        hidden: list[tuple[Tensor | None, Tensor]] = []
        outputs: Outputs = {}
        for index, model in enumerate(self._family.models):
            work = [(row, t) for row in rows for t in row.sequence.formula.terms if t.model == index]
            if not work:
                continue
            entries, keep, end = [], [], 0
            for row, term in work:
                entries.append(self._entry(row, term))
                end += row.count
                if row.emits:
                    keep.append(end - 1)
                    outputs[row.sequence, term] = len(outputs)
            batch = pack(entries, self._pools[index], self._device)
            active = sorted({term.variant for _, term in work})
            hidden.append(
                (model.head, model(batch, active, torch.tensor(keep, device=self._device, dtype=torch.int64)))
            )
        return self._project(hidden), outputs

    def _entry(self, row: ScheduledRow, term: Term) -> tuple[list[int], int, int, Tensor]:
        sequence, end = row.sequence, row.sequence.computed + row.count
        slots = token_slots(sequence.block_table, 0, end, self._block_size)
        shifted = slots + term.variant * self._variant_slots
        return sequence.tokens[sequence.computed : end], sequence.computed, term.variant, shifted

    def _project(self, hidden: Rows[tuple[Tensor | None, Tensor]]) -> Tensor:
        """Multiply by the output matrices, one product for all models that share theirs."""
        size = self._family.vocabulary.shape[0]
        logits: list[Tensor] = []
        shared: list[Tensor] = []
        for i, (head, states) in enumerate(hidden):
            following = hidden[i + 1][0] if i + 1 < len(hidden) else None
            if head is None:
                logits.append(states[:, :size].float())
                continue
            shared.append(states)
            if following is None or following.data_ptr() != head.data_ptr():
                logits.append(product(torch.cat(shared), head)[:, :size].float())
                shared.clear()
        return torch.cat(logits)

    def _combine(self, logits: Tensor, outputs: Outputs, sequences: Rows[Sequence]) -> Tensor:
        """Log p of every sequence up to a constant, [B, V]."""
        target = combine(
            logits, self._coefficients([s.formula.target for s in sequences], outputs, sequences)
        )
        careful = [i for i, s in enumerate(sequences) if s.formula.small is not None]
        if careful:
            chosen = [sequences[i] for i in careful]
            formulas = [s.formula for s in chosen]
            small = self._coefficients([f.small or () for f in formulas], outputs, chosen)
            rows_of_base = [outputs[s, s.formula.base] for s in chosen]
            rows_of_reference = [outputs[s, s.formula.reference] for s in chosen if s.formula.reference]
            target[careful] = conservative(
                combine(logits, small),
                logits[rows_of_base],
                logits[rows_of_reference],
                logits.new_tensor([f.strength for f in formulas]),
                logits.new_tensor([f.top_p for f in formulas]),
            )
        return target

    def _coefficients(
        self,
        formulas: Rows[tuple[tuple[Term, float], ...]],
        outputs: Outputs,
        sequences: Rows[Sequence],
    ) -> Tensor:
        """[B, N] coefficient of each stacked row in each sequence's sum."""
        matrix = torch.zeros(len(sequences), len(outputs))
        for i, (sequence, formula) in enumerate(zip(sequences, formulas, strict=True)):
            for term, weight in formula:
                matrix[i, outputs[sequence, term]] = weight
        return matrix.to(self._device)
