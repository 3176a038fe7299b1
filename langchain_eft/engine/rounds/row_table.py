"""What the device knows of each request: a row of numbers, from its first token to its end.

Most of a row is written once. The rounds then say which rows they have, and how these draft.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from langchain_eft.engine.decoding.coefficients import CoefficientTable
from langchain_eft.engine.decoding.formula import Formula
from langchain_eft.engine.decoding.gates import GateNumbers
from langchain_eft.engine.decoding.mirrored_rows import MirroredRows
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.scheduling.request_state import RequestState

SUMS = ("target", "draft", "small", "upscale")
"""The sums of a formula, as `formula.Coefficients` names them."""

TERM = ("variant", "start", "prompt_end", "prompt", "state")
"""What the column `terms` says of each term: the variant of its model; the tokens before the answer in the
prompt that it reads; the last of them; which of the row's block tables that prompt has; and the slot of the
recurrent state."""

DEAD = 0
"""The row of no request, all zeros: rounds are padded with it."""

_INTEGERS: dict[str, Callable[[RequestState], int]] = {
    "limit": lambda state: state.request.max_tokens,
    "prompt": lambda state: state.num_prompt_tokens,  # which the random numbers count too
    "seed": lambda state: state.request.sampling.seed,
    "greedy": lambda state: state.request.sampling.temperature == 0,
    "top_k": lambda state: state.request.sampling.top_k,
    "penalized": lambda state: state.request.sampling.has_penalties,
    "conservative": lambda state: state.formula.conservative,
    "unscaled": lambda state: state.formula.unscaled,
    "num_draft_terms": lambda state: len(state.formula.draft_terms),  # they are a row's first terms
    "base": lambda state: _place_of_base(state.formula),  # which of its terms is L
}
_REALS: dict[str, Callable[[RequestState], float]] = {
    "temperature": lambda state: state.request.sampling.temperature or 1.0,
    "top_p": lambda state: state.request.sampling.top_p,
    "min_p": lambda state: state.request.sampling.min_p,
    "repetition": lambda state: state.request.sampling.repetition_penalty,
    "frequency": lambda state: state.request.sampling.frequency_penalty,
    "presence": lambda state: state.request.sampling.presence_penalty,
    "upscale_top_p": lambda state: state.formula.upscale_top_p,
}

_Places = Mapping[str, tuple[int, int, tuple[int, ...]]]
"""By name of a column: which block of numbers has it, where it begins there, and its shape in a row."""


def terms_in_order(formula: Formula[Term]) -> list[Term]:
    """The terms of a request as its row has them: those that draft come first."""
    return list(dict.fromkeys([*formula.draft_terms, *formula.terms]))


class Columns:
    """Some rows of the table: `columns[name]` is [R, ...], and contiguous if it is [R]."""

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


class RowTable:
    """A row for each request that decodes.

    Attributes:
        num_terms: T, most terms of a row.
        coefficients: Of the `SUMS`, over a row's own terms.
        blocks: [rows, prompts, blocks] int32, the block tables of the prompts that its terms read.
        progress: [rows, 2] int64, the last token of each answer, and how many tokens it has. The device moves
            them on.

    Args:
        family: The models.
        max_batch_size: Most requests.
        num_blocks: Blocks of one variant of a model.
        block_size: Positions per block.
        device: Where logits are combined.
        num_slots: Slots of recurrent state of one variant of a model.
    """

    def __init__(
        self,
        family: ModelFamily,
        max_batch_size: int,
        num_blocks: int,
        block_size: int,
        device: torch.device,
        *,
        num_slots: int = 0,
    ) -> None:
        self._num_slots = num_slots
        rows, behaviors = max_batch_size + 1, len(family.behaviors)
        # The base, each behavior's two terms, and its reference on the base's prompt.
        self.num_terms = 1 + 3 * behaviors
        self._places = _places(self.num_terms, max(1, behaviors))
        self._numbers = [
            MirroredRows(torch.zeros(_width(self._places, block), rows, dtype=dtype), device, dim=1)
            for block, dtype in enumerate((torch.int64, torch.float32))
        ]
        # A weight has two segments at most.
        self.coefficients = CoefficientTable(rows, len(SUMS), self.num_terms, 2 * behaviors, device)
        prompts = len(family.prompt_names)
        width = -(-min(family.window, num_blocks * block_size) // block_size)
        self._blocks = MirroredRows(torch.zeros(rows, prompts, width, dtype=torch.int32), device)
        self._progress = MirroredRows(torch.zeros(rows, 2, dtype=torch.int64), device)
        self.blocks, self.progress = self._blocks.device, self._progress.device
        self._row_of: dict[RequestState, int] = {}
        self._num_blocks: dict[RequestState, int] = {}
        self._free = list(range(rows - 1, DEAD, -1))

    def columns(self, rows: Tensor) -> Columns:
        """The columns of [R] int64 rows, on the device."""
        return Columns(self._places, [each.device.index_select(1, rows) for each in self._numbers])

    def of(self, states: Iterable[RequestState]) -> list[int]:
        """The rows of requests. A request that is new gets one."""
        rows = []
        for state in states:
            if state not in self._row_of:
                self._row_of[state] = self._free.pop()
                self._num_blocks[state] = 0
                self._write(self._row_of[state], state)
                self.restore([state])
            self._write_blocks(self._row_of[state], state)
            rows.append(self._row_of[state])
        return rows

    def keep(self, states: Iterable[RequestState]) -> None:
        """Free the rows of all other requests."""
        for state in self._row_of.keys() - set(states):
            self._free.append(self._row_of.pop(state))
            del self._num_blocks[state]

    def restore(self, states: Iterable[RequestState]) -> None:
        """Say where rows stand: a round that has failed may have moved them on."""
        for row, state in [(self._row_of[state], state) for state in states if state in self._row_of]:
            self._progress.host[row] = torch.tensor([state.tokens[-1], state.num_output_tokens])
            self._progress.touch(row)

    def flush(self) -> None:
        """Send what has changed to the device."""
        for each in (*self._numbers, self.coefficients.rows, self._blocks, self._progress):
            each.flush()

    def _write(self, row: int, state: RequestState) -> None:
        """Write what stays for the whole answer."""
        formula, terms = state.formula, terms_in_order(state.formula)
        for numbers in self._numbers:
            numbers.host[:, row] = 0
            numbers.touch(row)
        for name, value in (_INTEGERS | _REALS).items():
            self._set(row, name, [value(state)])
        prompts = {name: number for number, name in enumerate(state.prompts)}
        reads = [state.prompts[term.prompt_name] for term in terms]
        of_terms = torch.zeros(len(TERM), self.num_terms, dtype=torch.int64)
        of_terms[:, : len(terms)] = torch.tensor(
            [
                [term.variant for term in terms],
                [prompt.num_prompt_tokens for prompt in reads],
                [prompt.tokens[prompt.num_prompt_tokens - 1] for prompt in reads],
                [prompts[term.prompt_name] for term in terms],
                [
                    (prompt.state_slot or 0) + term.variant * self._num_slots
                    for term, prompt in zip(terms, reads, strict=True)
                ],
            ]
        )
        self._set(row, "terms", of_terms.flatten().tolist())
        gates = [GateNumbers.of(each.gate) for each in formula.gates]
        for name in GateNumbers._fields:
            self._set(row, f"gate_{name}", [getattr(gate, name) for gate in gates])
        added = [_in_order(each.added, terms, self.num_terms) for each in formula.gates]
        self._set(row, "gated", [weight for weights in added for weight in weights])
        at_knots = [
            [_in_order(getattr(formula.at(knot), name) or (), terms, self.num_terms) for name in SUMS]
            for knot in formula.knots
        ]
        self.coefficients.set(row, formula.knots, torch.tensor(at_knots, dtype=torch.float64))

    def _set(self, row: int, name: str, values: Sequence[float]) -> None:
        block, start, _ = self._places[name]
        host = self._numbers[block].host
        host[start : start + len(values), row] = torch.tensor(values, dtype=host.dtype)

    def _write_blocks(self, row: int, state: RequestState) -> None:
        """Write the block tables, if they have grown."""
        tables = [prompt.block_table for prompt in state.prompts.values()]
        if (count := sum(map(len, tables))) != self._num_blocks[state]:
            self._num_blocks[state] = count
            self._blocks.touch(row)
            for number, table in enumerate(tables):
                self._blocks.host[row, number, : len(table)] = torch.tensor(table, dtype=torch.int32)


def _places(terms: int, gates: int) -> _Places:
    integers: dict[str, tuple[int, ...]] = dict.fromkeys(_INTEGERS, ())
    integers |= {"gate_measure": (gates,), "gate_below": (gates,)}
    integers |= {"terms": (len(TERM), terms)}
    reals: dict[str, tuple[int, ...]] = dict.fromkeys(_REALS, ())
    reals |= {"gate_threshold": (gates,), "gated": (gates, terms)}
    places: dict[str, tuple[int, int, tuple[int, ...]]] = {}
    for block, shapes in enumerate((integers, reals)):
        start = 0
        for name, shape in shapes.items():
            places[name] = block, start, shape
            start += prod(shape)
    return places


def _width(places: _Places, block: int) -> int:
    """Numbers of a row in a block."""
    return sum(prod(shape) for of_block, _, shape in places.values() if of_block == block)


def _place_of_base(formula: Formula[Term]) -> int:
    terms = terms_in_order(formula)
    return terms.index(formula.base) if formula.base in terms else 0


def _in_order(total: Sequence[tuple[Term, float]], terms: Sequence[Term], size: int) -> list[float]:
    """[size] the coefficients of a sum, for terms in a given order, and zeros."""
    weights = dict(total)
    return [weights.get(term, 0.0) for term in terms] + [0.0] * (size - len(terms))
