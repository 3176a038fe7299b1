"""What the device knows of each request: a row of numbers, from its first token to its end.

Most of a row is written once. The rounds then say which rows they have, and how these draft.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from langchain_eft.engine.decoding.formula_table import FormulaTable, Shapes, most_terms, terms_in_order
from langchain_eft.engine.decoding.mirrored_rows import MirroredRows
from langchain_eft.engine.models.activation import first_own_block
from langchain_eft.engine.models.family import ModelFamily
from langchain_eft.engine.scheduling.request_state import RequestState

TERM = ("variant", "start", "prompt_end", "prompt", "state", "first_own")
"""What the column `terms` says of each term: the variant of its model; the tokens before the answer in the
prompt that it reads; the last of them; which of the row's block tables that prompt has; the slot of the
recurrent state; and the first block whose keys and values are the variant's own."""

DEAD = 0
"""The row of no request, all zeros: rounds are padded with it."""

_INTEGERS: dict[str, Callable[[RequestState], int]] = {
    "limit": lambda state: state.request.max_tokens,
    "prompt": lambda state: state.num_prompt_tokens,  # which the random numbers count too
    "seed": lambda state: state.request.sampling.seed,
    "greedy": lambda state: state.request.sampling.temperature == 0,
    "top_k": lambda state: state.request.sampling.top_k,
    "penalized": lambda state: state.request.sampling.has_penalties,
}
_REALS: dict[str, Callable[[RequestState], float]] = {
    "temperature": lambda state: state.request.sampling.temperature or 1.0,
    "top_p": lambda state: state.request.sampling.top_p,
    "min_p": lambda state: state.request.sampling.min_p,
    "repetition": lambda state: state.request.sampling.repetition_penalty,
    "frequency": lambda state: state.request.sampling.frequency_penalty,
    "presence": lambda state: state.request.sampling.presence_penalty,
}


class RowTable(FormulaTable):
    """A row for each request that decodes: its formula, and what else the device knows of it.

    Attributes:
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
        rows, of_terms = max_batch_size + 1, (len(TERM), most_terms(family))
        integers: Shapes = {**dict.fromkeys(_INTEGERS, ()), "terms": of_terms}
        super().__init__(family, rows, device, integers, dict.fromkeys(_REALS, ()))
        self._num_slots, self._block_size, prompts = num_slots, block_size, len(family.prompt_names)
        width = -(-min(family.window, num_blocks * block_size) // block_size)
        self._blocks = MirroredRows(torch.zeros(rows, prompts, width, dtype=torch.int32), device)
        self._progress = MirroredRows(torch.zeros(rows, 2, dtype=torch.int64), device)
        self.blocks, self.progress = self._blocks.device, self._progress.device
        self._row_of: dict[RequestState, int] = {}
        self._num_blocks: dict[RequestState, int] = {}
        self._free = list(range(rows - 1, DEAD, -1))

    def of(self, states: Iterable[RequestState]) -> list[int]:
        """The rows of requests. A request that is new gets one."""
        rows = []
        for state in states:
            if state not in self._row_of:
                self._row_of[state] = self._free.pop()
                self._num_blocks[state] = 0
                self._write_request(self._row_of[state], state)
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
        super().flush()
        self._blocks.flush()
        self._progress.flush()

    def _write_request(self, row: int, state: RequestState) -> None:
        """Write what stays for the whole answer."""
        self.write(row, state.formula)
        terms = terms_in_order(state.formula)
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
                [first_own_block(term, self._block_size) for term in terms],
            ]
        )
        self._set(row, "terms", of_terms.flatten().tolist())

    def _write_blocks(self, row: int, state: RequestState) -> None:
        """Write the block tables, if they have grown."""
        tables = [prompt.block_table for prompt in state.prompts.values()]
        if (count := sum(map(len, tables))) != self._num_blocks[state]:
            self._num_blocks[state] = count
            self._blocks.touch(row)
            for number, table in enumerate(tables):
                self._blocks.host[row, number, : len(table)] = torch.tensor(table, dtype=torch.int32)
