"""Summarize requests that were decoded together as runs, and compare runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_eft.diagnostics.bench.turns import Spread
from langchain_eft.diagnostics.decoded_answer import DecodedAnswer
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import acceptance_rate
from langchain_eft.engine.models.placement import unique_storages
from langchain_eft.engine.recipe.mixture import Mixture

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine


@dataclass(frozen=True)
class Run:
    """The tokens and the time of one run in one decoding mode.

    The time starts when each request of a batch has its first token, so prompts do not count. Answers of
    unequal length leave rows of a batch empty near its end, in every mode.

    Attributes:
        tokens: Decoded tokens, without the first of each answer.
        seconds: Seconds for these tokens.
        passes: Passes over all models that each request took part in, summed over the requests.
        drafted: Draft tokens.
        accepted: Accepted draft tokens.
        first_token: Median seconds from submission to the first token.
        new_prompt_tokens: Median number of prompt tokens that were not in the prefix cache.
    """

    tokens: int
    seconds: float
    passes: int
    drafted: int
    accepted: int
    first_token: float
    new_prompt_tokens: float

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed, over all requests of the batch."""
        return self.tokens / self.seconds


def summarize(batches: Sequence[Sequence[DecodedAnswer]]) -> Run:
    """Summarize batches that were decoded one after the other.

    Raises:
        RequestError: All answers ended with their first token.
    """
    starts = [max(answer.deltas[0].at for answer in batch) for batch in batches]
    ends = [answer.end for batch in batches for answer in batch]
    token_counts = [
        len(delta.tokens)
        for batch, start in zip(batches, starts, strict=True)
        for answer in batch
        for delta in answer.deltas
        if delta.at > start
    ]
    if not token_counts:
        raise RequestError(
            "All answers ended with their first token, so there is no speed to measure: use other prompts or "
            "a larger `max_tokens`."
        )
    return Run(
        tokens=sum(token_counts),
        seconds=sum(
            max(answer.deltas[-1].at for answer in batch) - start
            for batch, start in zip(batches, starts, strict=True)
        ),
        passes=len(token_counts),
        drafted=sum(end.drafted_tokens for end in ends),
        accepted=sum(end.accepted_tokens for end in ends),
        first_token=statistics.median(end.time_to_first_token for end in ends),
        new_prompt_tokens=statistics.median(end.prompt_tokens - end.cached_tokens for end in ends),
    )


@dataclass(frozen=True)
class Measurement:
    """Several runs of one set of prompts in one decoding mode.

    Attributes:
        prompts: Name of the prompt set, or `all`.
        batch_size: Concurrent requests.
        mode: Name of the decoding mode.
        runs: One run for each repetition.
        baselines: The run of plain EFT next to each run; empty for plain EFT itself.
        weight_bytes: Bytes of weights that a pass reads, without adapters; None if requests share passes.
    """

    prompts: str
    batch_size: int
    mode: str
    runs: tuple[Run, ...]
    baselines: tuple[Run, ...]
    weight_bytes: int | None

    @property
    def tokens_per_second(self) -> Spread:
        """Decoding speed over all requests of the batch."""
        return Spread.of([run.tokens_per_second for run in self.runs])

    @property
    def ratio(self) -> Spread | None:
        """Speed relative to plain EFT in runs next to each other; None for plain EFT itself."""
        if not self.baselines:
            return None
        return Spread.of_ratios(
            [run.tokens_per_second for run in self.runs],
            [plain.tokens_per_second for plain in self.baselines],
        )

    @property
    def first_token(self) -> Spread:
        """Seconds to the first token."""
        return Spread.of([run.first_token for run in self.runs])

    @property
    def acceptance_rate(self) -> float | None:
        """Share of accepted draft tokens; None without drafts."""
        return acceptance_rate(sum(run.accepted for run in self.runs), sum(run.drafted for run in self.runs))

    @property
    def tokens_per_pass(self) -> float:
        """Tokens that a request gains with each pass over all models."""
        return sum(run.tokens for run in self.runs) / sum(run.passes for run in self.runs)

    @property
    def bytes_per_second(self) -> float | None:
        """Bytes of weights read per second. Each pass counts once; draft passes do not count."""
        if self.weight_bytes is None:
            return None
        return statistics.median(self.weight_bytes * run.passes / run.seconds for run in self.runs)


def weights_read(engine: Engine, mixture: Mixture) -> int:
    """Bytes of weights that a pass over the models of a mixture reads. Shared weights count once.

    Adapters do not count.
    """
    family = engine.family
    terms = {family.base, *(term for name in mixture.active() for term in family.behaviors[name])}
    bytes_by_address: dict[int, int] = {}
    for module in (family.models[i].module for i in {term.model for term in terms}):
        modules: Any = module
        embeddings, head = modules.get_input_embeddings().weight, modules.get_output_embeddings().weight
        # Of embeddings that are not the output matrix as well, a token reads a single row.
        not_read = None if embeddings is head else embeddings
        packed = (buffer for name, buffer in modules.named_buffers() if name.endswith("weight"))
        tensors = [tensor for tensor in (*modules.parameters(), *packed) if tensor is not not_read]
        bytes_by_address |= {address: tensor.nbytes for address, tensor in unique_storages(tensors).items()}
    return sum(bytes_by_address.values())
