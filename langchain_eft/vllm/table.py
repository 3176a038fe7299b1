"""The factors of all requests of a batch, on the host and on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from langchain_eft.engine.decoding.formula import Formula


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

    Coefficients are piecewise linear in the position of a token in its answer. A slot holds them at position
    0, and how much they change in each segment between two knots.

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
        self._segments, self._device = segments, device
        self._formulas = [default] * slots
        self._host = self._values(default, 0).repeat(slots, 1)
        self._values_of_slots = self._host.to(device)
        self._changed: set[int] = set()
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
        self._host[slot] = self._values(formula, prompt_tokens)
        self._changed.add(slot)

    def move(self, source: int, target: int) -> None:
        """Copy one slot to another."""
        self._formulas[target] = self._formulas[source]
        self._host[target] = self._host[source]
        self._changed.add(target)

    def swap(self, first: int, second: int) -> None:
        """Exchange two slots."""
        formulas, host = self._formulas, self._host
        formulas[first], formulas[second] = formulas[second], formulas[first]
        host[[first, second]] = host[[second, first]]
        self._changed |= {first, second}

    def flush(self) -> None:
        """Copy the slots that changed to the device."""
        if not self._changed:
            return
        slots = torch.tensor(sorted(self._changed))
        values = self._host[slots]
        if self._device.type == "cuda":
            # Copies of their own, which nobody changes while they are on their way.
            slots, values = slots.pin_memory(), values.pin_memory()
        self._values_of_slots.index_copy_(
            0, slots.to(self._device, non_blocking=True), values.to(self._device, non_blocking=True)
        )
        self._changed.clear()

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
        count = len(positions)
        values = self._values_of_slots[:count] if self._rows is None else self._values_of_slots[self._rows]
        if len(values) != count:
            if self._rows is not None:
                raise RuntimeError(f"{count} rows of logits in a step of {len(values)}.")
            values = self._values_of_slots[:1].expand(count, -1)  # only dummy runs have so many
        terms, segments = len(self._index), self._segments
        prompt_tokens, top_p, values = values[:, 0], values[:, 1], values[:, 2:]
        start, values = values[:, : 2 * terms], values[:, 2 * terms :]
        if self._scheduled:
            begin, length, changes = torch.split(values, [segments, segments, segments * 2 * terms], -1)
            answer = (positions + 1 - prompt_tokens).clamp(min=0)
            done = ((answer[:, None] - begin) / length).clamp(0, 1)
            start = start + (done[:, :, None] * changes.view(count, segments, 2 * terms)).sum(1)
        small, upscale = torch.split(start, terms, -1)
        if not self._conservative:
            return Factors(small, None, None)
        return Factors(small, upscale, top_p)

    def _values(self, formula: Formula[str], prompt_tokens: int) -> Tensor:
        """[W]: prompt_tokens, upscale_top_p, factors at position 0; begin, length, changes by segment."""
        at_knots = [self._coefficients(formula, knot) for knot in formula.knots]
        unused = self._segments + 1 - len(at_knots)
        begin = [*formula.knots[:-1], *[0] * unused]
        ends = zip(formula.knots[:-1], formula.knots[1:], strict=True)
        length = [*(after - before for before, after in ends), *[1] * unused]
        changes = torch.zeros(self._segments, 2 * len(self._index))
        if len(at_knots) > 1:
            changes[: len(at_knots) - 1] = torch.stack(at_knots).diff(dim=0)
        first = torch.tensor([prompt_tokens, formula.upscale_top_p], dtype=torch.float32)
        segments = torch.tensor([begin, length], dtype=torch.float32)
        return torch.cat([first, at_knots[0], segments.flatten(), changes.flatten()])

    def _coefficients(self, formula: Formula[str], position: int) -> Tensor:
        """[2 * M], the factors of the small mixture and of the up-scaling weight."""
        coefficients = formula.at(position)
        values = torch.zeros(2, len(self._index))
        sums = (coefficients.small or coefficients.target, coefficients.upscale or ())
        for row, total in enumerate(sums):
            for term, factor in total:
                values[row, self._index[term]] = factor
        return values.flatten()
