"""What is measured: requests that are decoded together, runs of them, and ratios of runs."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import Event, Failed, Finished, TextDelta, acceptance_rate
from langchain_eft.engine.models.placement import unique_storages
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import Generation, GenerationRequest

if TYPE_CHECKING:
    from langchain_eft.engine.engine import Engine


@dataclass
class Recorder:
    """A request's tokens, and when they came.

    Attributes:
        clock: Tells the time.
        deltas: Time and token ids of every round.
        end: How it ended.
        done: Set with `end`.
    """

    clock: Callable[[], float] = time.perf_counter
    deltas: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    end: Finished | Failed | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: Event) -> None:
        """Take an event from the engine's thread."""
        if isinstance(event, TextDelta):
            self.deltas.append((self.clock(), event.tokens))
        else:
            self.end = event
            self.done.set()

    def result(self) -> Finished:
        """Wait for the end.

        Raises:
            EngineError: The request failed.
        """
        self.done.wait()
        if isinstance(self.end, Failed):
            raise self.end.error
        assert self.end is not None  # noqa: S101  (set before `done`)
        return self.end


@dataclass(frozen=True)
class Run:
    """What one run of one way to decode took.

    Decoding is measured from the moment at which every request of a batch has its first token: prompts are
    no part of it. Answers of unequal length leave rows of a batch empty near its end, whichever way decodes.

    Attributes:
        tokens: Tokens decoded, first ones left out.
        seconds: Seconds that it took.
        passes: Passes over all models that each of the requests took part in, summed over the requests.
        drafted: Tokens guessed ahead.
        accepted: Guesses that were right.
        first_token: Median of the seconds from submission to first token.
        new_prompt_tokens: Median of the prompt tokens that had to be computed for it.
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


def decode(
    engine: Engine,
    requests: Iterable[GenerationRequest],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Recorder]:
    """Decode requests at once and wait for all of them."""
    running: list[Generation] = []
    recorders: list[Recorder] = []
    try:
        for request in requests:
            recorders.append(Recorder(clock))
            running.append(engine.submit(request, recorders[-1]))
        for recorder in recorders:
            recorder.result()
    finally:
        for generation in running:
            generation.cancel()
    return recorders


def summarize(batches: Sequence[Sequence[Recorder]]) -> Run:
    """What batches that were decoded one after the other took.

    Raises:
        RequestError: Every answer ended with its first token.
    """
    starts = [max(recorder.deltas[0][0] for recorder in batch) for batch in batches]
    ends = [recorder.result() for batch in batches for recorder in batch]
    counted = [
        len(tokens)
        for batch, start in zip(batches, starts, strict=True)
        for recorder in batch
        for at, tokens in recorder.deltas
        if at > start
    ]
    if not counted:
        raise RequestError("Every answer ended with its first token: use other prompts or more `max_tokens`.")
    return Run(
        tokens=sum(counted),
        seconds=sum(
            max(recorder.deltas[-1][0] for recorder in batch) - start
            for batch, start in zip(batches, starts, strict=True)
        ),
        passes=len(counted),
        drafted=sum(end.drafted_tokens for end in ends),
        accepted=sum(end.accepted_tokens for end in ends),
        first_token=statistics.median(end.time_to_first_token for end in ends),
        new_prompt_tokens=statistics.median(end.prompt_tokens - end.cached_tokens for end in ends),
    )


@dataclass(frozen=True)
class Spread:
    """Median and extremes of a few measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One way to decode one set of prompts, in several runs.

    Attributes:
        prompts: Name of the prompt set, or `all`.
        batch: Concurrent requests.
        way: How they were decoded.
        runs: One run for each repetition.
        baselines: For each run the run of plain EFT beside it; empty for plain EFT itself.
        weight_bytes: Weights that a pass reads, adapters left out; None where passes are shared by requests.
    """

    prompts: str
    batch: int
    way: str
    runs: tuple[Run, ...]
    baselines: tuple[Run, ...]
    weight_bytes: int | None

    @property
    def tokens_per_second(self) -> Spread:
        """Decoding speed over all requests of the batch."""
        return Spread.of([run.tokens_per_second for run in self.runs])

    @property
    def ratio(self) -> Spread | None:
        """Speed over that of plain EFT, from runs side by side."""
        pairs = zip(self.runs, self.baselines, strict=False)
        ratios = [run.tokens_per_second / plain.tokens_per_second for run, plain in pairs]
        return Spread.of(ratios) if ratios else None

    @property
    def first_token(self) -> Spread:
        """Seconds to the first token."""
        return Spread.of([run.first_token for run in self.runs])

    @property
    def acceptance_rate(self) -> float | None:
        """Share of the guesses that were right; None where none were made."""
        return acceptance_rate(sum(run.accepted for run in self.runs), sum(run.drafted for run in self.runs))

    @property
    def tokens_per_pass(self) -> float:
        """Tokens that a request gains with every pass over all models."""
        return sum(run.tokens for run in self.runs) / sum(run.passes for run in self.runs)

    @property
    def bytes_per_second(self) -> float | None:
        """Weights read per second, if every pass reads each once; what draft passes read is not counted."""
        if self.weight_bytes is None:
            return None
        return statistics.median(self.weight_bytes * run.passes / run.seconds for run in self.runs)


def weights_read(engine: Engine, mixture: Mixture) -> int:
    """Bytes of weights that a pass over a mixture's models reads: shared ones once, adapters left out."""
    family = engine.family
    terms = {family.base, *(term for name in mixture.active() for term in family.behaviors[name])}
    read: dict[int, int] = {}
    for module in (family.models[i].module for i in {term.model for term in terms}):
        modules: Any = module
        embeddings, head = modules.get_input_embeddings().weight, modules.get_output_embeddings().weight
        looked_up = None if embeddings is head else embeddings  # one row of it for each token
        packed = (buffer for name, buffer in modules.named_buffers() if name.endswith("weight"))
        tensors = [tensor for tensor in (*modules.parameters(), *packed) if tensor is not looked_up]
        read |= {memory: tensor.nbytes for memory, tensor in unique_storages(tensors).items()}
    return sum(read.values())
