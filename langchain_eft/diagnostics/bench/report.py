"""The benchmark of a recipe, and its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_eft.diagnostics.bench.machine import Machine, measure_machine
from langchain_eft.diagnostics.bench.measurement import Measurement, Run, summarize, weights_read
from langchain_eft.diagnostics.bench.turns import take_turns
from langchain_eft.diagnostics.bench.workload import (
    AUTO,
    BASE_ALONE,
    PLAIN,
    DecodingMode,
    PromptSet,
    Workload,
    default_prompts,
)
from langchain_eft.diagnostics.decoded_answer import decode
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.scheduling.draft_length import DRAFT_LENGTHS

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.engine import Engine

BATCH_SIZES = (1, 4, 16)
"""Default numbers of concurrent requests."""

ALL_PROMPTS = "all"
"""Name of the prompts of all sets together."""


@dataclass(frozen=True)
class BenchmarkReport:
    """The measurements of a recipe on a machine.

    Attributes:
        model: The chat model's name of its base.
        machine: The machine.
        max_tokens: Longest answer, in tokens.
        repetitions: Runs of each decoding mode.
        measurements: The measurements.
    """

    model: str
    machine: Machine
    max_tokens: int
    repetitions: int
    measurements: tuple[Measurement, ...]

    def to_json(self) -> str:
        """The report with its single runs, as JSON."""
        summaries = [_summary(measurement) for measurement in self.measurements]
        return json.dumps({**asdict(self), "measurements": summaries}, indent=2)

    def bandwidth_share(self, measurement: Measurement) -> float | None:
        """Bytes of weights read per second over the memory bandwidth; None if requests share passes."""
        rate = measurement.bytes_per_second
        return None if rate is None else rate / self.machine.bytes_per_second


def _summary(measurement: Measurement) -> dict[str, Any]:
    return {
        **asdict(measurement),
        "tokens_per_second": asdict(measurement.tokens_per_second),
        "ratio": asdict(measurement.ratio) if measurement.ratio else None,
        "first_token": asdict(measurement.first_token),
        "acceptance_rate": measurement.acceptance_rate,
        "tokens_per_pass": measurement.tokens_per_pass,
        "bytes_per_second": measurement.bytes_per_second,
    }


def run_benchmark(
    llm: EFTChatModel,
    *,
    prompts: Sequence[PromptSet] | None = None,
    max_tokens: int = 48,
    repetitions: int = 3,
    lengths: Sequence[int] = DRAFT_LENGTHS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    progress: Progress = silent,
) -> BenchmarkReport:
    """Measure the speed of a chat model's recipe.

    Args:
        llm: The chat model, with its weights, mixture and sampling.
        prompts: The prompts; None for `default_prompts`.
        max_tokens: Longest answer, in tokens.
        repetitions: Runs of each decoding mode, each next to a run of plain EFT.
        lengths: Draft lengths to measure.
        batch_sizes: Numbers of concurrent requests to measure.
        progress: Receives a short message for each run.

    Raises:
        EngineError: The recipe cannot be loaded or decoded, or a batch does not fit the engine.
    """
    engine = llm.open_local(progress)
    _check(engine, max_tokens, repetitions, batch_sizes)
    sets = default_prompts(llm) if prompts is None else tuple(prompts)
    benchmark = _Benchmark(engine, Workload(llm, engine, max_tokens), repetitions, progress)
    progress("Measuring the memory bandwidth")
    machine = measure_machine(engine.config.device)
    measurements = [measurement for each in sets for measurement in benchmark.draft_lengths(each, lengths)]
    measurements += [measurement for size in batch_sizes for measurement in benchmark.batches(sets, size)]
    return BenchmarkReport(llm.model, machine, max_tokens, repetitions, tuple(measurements))


def _check(engine: Engine, max_tokens: int, repetitions: int, batch_sizes: Sequence[int]) -> None:
    if max_tokens < 2 or repetitions < 1:
        raise RequestError(
            "max_tokens must be at least 2 and repetitions at least 1, got "
            f"max_tokens={max_tokens} and repetitions={repetitions}."
        )
    largest = engine.config.max_batch_size
    invalid = [size for size in batch_sizes if not 1 <= size <= largest]
    if invalid:
        raise RequestError(
            f"Batch sizes of this engine must be from 1 to {largest}, got {invalid[0]}: choose other batch "
            f"sizes, or set engine_options={{'max_batch_size': {max(invalid)}}}."
        )


class _Benchmark:
    """Runs decoding modes in turn with plain EFT."""

    def __init__(self, engine: Engine, workload: Workload, repetitions: int, progress: Progress) -> None:
        self._engine = engine
        self._workload = workload
        self._repetitions = repetitions
        self._progress = progress

    def draft_lengths(self, prompts: PromptSet, lengths: Sequence[int]) -> list[Measurement]:
        """Measure one request at a time: the base alone, each draft length, and the automatic length."""
        has_behaviors = bool(self._workload.mixture(prompts, PLAIN).active())
        drafts = [DecodingMode(f"draft {length}", length) for length in lengths]
        return self._compare(
            [prompts], prompts.name, 1, [*([BASE_ALONE] if has_behaviors else []), *drafts, AUTO]
        )

    def batches(self, sets: Sequence[PromptSet], batch_size: int) -> list[Measurement]:
        """Measure the prompts of all sets, `batch_size` requests at a time."""
        return self._compare(sets, ALL_PROMPTS, batch_size, [AUTO])

    def _compare(
        self, sets: Sequence[PromptSet], name: str, batch_size: int, modes: Sequence[DecodingMode]
    ) -> list[Measurement]:
        for mode in (PLAIN, *modes):
            self._progress(f"Warming up: {name}, {batch_size} at a time, {mode.name}")
            decode(self._engine, self._workload.batches(sets, batch_size, mode)[0])

        def pair(mode: DecodingMode, turn: int) -> tuple[Run, Run]:
            self._progress(f"{name}, {batch_size} at a time, {mode.name}, run {turn + 1}")
            # Who goes first changes within the pair, too.
            order = (PLAIN, mode) if turn % 2 == 0 else (mode, PLAIN)
            runs = {each: self._run(sets, batch_size, each) for each in order}
            return runs[mode], runs[PLAIN]

        pairs = take_turns({mode: partial(pair, mode) for mode in modes}, self._repetitions, warm_up=0)
        plain_runs = tuple(baseline for mode in modes for _, baseline in pairs[mode])
        measurements = [self._measurement(sets, name, batch_size, PLAIN, plain_runs, ())]
        for mode in modes:
            mode_runs, baselines = zip(*pairs[mode], strict=True)
            measurements.append(self._measurement(sets, name, batch_size, mode, mode_runs, baselines))
        return measurements

    def _measurement(
        self,
        sets: Sequence[PromptSet],
        name: str,
        batch_size: int,
        mode: DecodingMode,
        runs: tuple[Run, ...],
        baselines: tuple[Run, ...],
    ) -> Measurement:
        sizes = {weights_read(self._engine, self._workload.mixture(prompts, mode)) for prompts in sets}
        weight_bytes = sizes.pop() if batch_size == 1 and len(sizes) == 1 else None
        return Measurement(name, batch_size, mode.name, runs, baselines, weight_bytes)

    def _run(self, sets: Sequence[PromptSet], batch_size: int, mode: DecodingMode) -> Run:
        batches = self._workload.batches(sets, batch_size, mode)
        return summarize([decode(self._engine, batch) for batch in batches])
