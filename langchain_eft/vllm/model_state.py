"""Runner V2's hooks into the batch."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_states.default import DefaultModelState
from vllm.v1.worker.gpu.states import RequestState

from langchain_eft.vllm.mixtures import request_formula


class EFTModelState(DefaultModelState):  # type: ignore[misc]
    """Knows the request of every row of logits, drafted rows too."""

    model: Any

    def add_request(self, req_index: int, new_req_data: NewRequestData) -> None:
        """Give a request's slot its formula."""
        super().add_request(req_index, new_req_data)
        params = new_req_data.sampling_params
        formula = request_formula(self.model.section, params.extra_args if params else None)
        self.model.table.set(req_index, formula, len(new_req_data.prompt_token_ids or ()))

    def apply_staged_writes(self) -> None:
        """Copy new formulas to the device."""
        super().apply_staged_writes()
        self.model.table.flush()

    def prepare_inputs(
        self, input_batch: InputBatch, req_states: RequestState
    ) -> dict[str, torch.Tensor | None]:
        """Note the slots of the step's rows."""
        self.model.table.begin_step(input_batch.idx_mapping_np.tolist(), input_batch.expanded_idx_mapping)
        inputs: dict[str, torch.Tensor | None] = super().prepare_inputs(input_batch, req_states)
        return inputs

    def prepare_dummy_inputs(self, num_reqs: int, num_tokens: int) -> dict[str, Any]:
        """A dummy run has no requests: row i gets slot i."""
        self.model.table.begin_step(range(num_reqs), rows=None)
        inputs: dict[str, Any] = super().prepare_dummy_inputs(num_reqs, num_tokens)
        return inputs
