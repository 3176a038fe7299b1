"""The hook through which vLLM shows us requests. It changes no logits."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as ProcessorV1
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as ProcessorV2

from langchain_eft.engine.errors import RequestError
from langchain_eft.vllm.mixtures import request_formula
from langchain_eft.vllm.section import EFTSection
from langchain_eft.vllm.settings import HOOK, SECTIONS
from langchain_eft.vllm.shared_table import table_of
from langchain_eft.vllm.table import FactorTable


class EFTRequests(ProcessorV1, ProcessorV2):  # type: ignore[misc]
    """Checks requests, and on runner V1 follows them through the rows of the batch.

    Runner V2 wants a class of its own interface, so this one has both. There, the model's state follows
    requests.
    """

    section: ClassVar[EFTSection | None] = None

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request that cannot be answered, and let the answer end where tuned models end theirs.

        Raises:
            ValueError: With the reason; the server answers with status 400.
        """
        section = cls.section
        if section is None:
            raise RequestError("This process has not read the model's section `eft`.")
        request_formula(section, sampling_params.extra_args)
        if (
            sampling_params.prompt_logprobs is not None
            or sampling_params.prompt_logprob_token_ids is not None
        ):
            raise RequestError(
                "The log-probabilities of a prompt are not computed here, for vLLM does not say whose it "
                "is: leave out `prompt_logprobs`, and `echo` together with `logprobs`."
            )
        sampling_params._all_stop_token_ids.update(section.end_ids)
        if not sampling_params.ignore_eos:
            sampling_params.stop_token_ids = sorted(
                {*(sampling_params.stop_token_ids or ()), *section.end_ids}
            )

    def __init__(self, vllm_config: VllmConfig, *device: Any) -> None:
        self._section = EFTSection.of(vllm_config.model_config.hf_config)
        on_v1 = len(device) == 2  # with whether memory can be pinned; V2 passes the requests' state
        self._table: FactorTable | None = table_of(vllm_config, device[0]) if on_v1 else None

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """V1: follow requests through the batch.

        Args:
            batch_update: What changed since the last step, or None.
        """
        table = self._table
        if batch_update is None or table is None:
            return
        for row, params, prompt_ids, _ in batch_update.added:
            table.set(row, request_formula(self._section, params.extra_args), len(prompt_ids or ()))
        for source, target, direction in batch_update.moved:
            if direction == MoveDirectionality.SWAP:
                table.swap(source, target)
            else:
                table.move(source, target)
        table.flush()
        table.begin_step(range(batch_update.batch_size), rows=None)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:  # noqa: ARG002  (V2's interface)
        """V2: whether this changes logits of the request."""
        return False

    def is_argmax_invariant(self) -> bool:
        """V1: whether this leaves the most probable token as it is."""
        return True

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:  # noqa: ARG002
        """Leave logits as they are."""
        return logits


def __getattr__(name: str) -> type[EFTRequests]:
    """The class that checks the requests of one section, by the name that `settings` gave to vLLM."""
    if not name.startswith(HOOK):
        raise AttributeError(name)
    return type(name, (EFTRequests,), {"section": SECTIONS.get(name)})
