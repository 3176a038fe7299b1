"""The benchmark of a recipe, and what it found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from langchain_eft.diagnostics.bench.machine import Machine, measure_machine
from langchain_eft.diagnostics.bench.measurement import Row, Run, decode, summarize, weights_read
from langchain_eft.diagnostics.bench.workload import (
    AUTO,
    BASE,
    PLAIN,
    PromptSet,
    Way,
    Workload,
    default_prompts,
)
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.progress import Progress, silent
from langchain_eft.engine.scheduling.draft_length import DRAFT_LENGTHS

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.engine import Engine

BATCH_SIZES = (1, 4, 16)
"""Numbers of concurrent requests that are tried."""

EVERYTHING = "all"
"""What the rows are called that mix the prompts of all sets."""


@dataclass(frozen=True)
class BenchmarkReport:
    """What was measured, where and how.

    Attributes:
        model: The chat model's name of its base.
        machine: Where.
        max_tokens: Longest answer.
        repetitions: Runs of every way to decode.
        rows: What was measured.
    """

    model: str
    machine: Machine
    max_tokens: int
    repetitions: int
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """Everything, with the single runs, for machines."""
        return json.dumps({**asdict(self), "rows": [_summary(row) for row in self.rows]}, indent=2)

    def bandwidth_share(self, row: Row) -> float | None:
        """Weights read per second as a share of the memory bandwidth; None where passes are shared."""
        rate = row.bytes_per_second
        return None if rate is None else rate / self.machine.bytes_per_second


def _summary(row: Row) -> dict[str, Any]:
    return {
        **asdict(row),
        "tokens_per_second": asdict(row.tokens_per_second),
        "ratio": asdict(row.ratio) if row.ratio else None,
        "first_token": asdict(row.first_token),
        "acceptance_rate": row.acceptance_rate,
        "tokens_per_pass": row.tokens_per_pass,
        "bytes_per_second": row.bytes_per_second,
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
    """Measure how fast a chat model's recipe decodes.

    Args:
        llm: Its weights, mixture and sampling are measured.
        prompts: What to ask; None is `default_prompts`.
        max_tokens: Longest answer.
        repetitions: Runs of every way to decode, each beside a run of plain EFT.
        lengths: Draft lengths to try.
        batch_sizes: Numbers of concurrent requests to try.
        progress: Told what is being measured.

    Raises:
        EngineError: The recipe cannot be loaded or decoded, or a batch does not fit the engine.
    """
    engine = llm.open(progress)
    _check(engine, max_tokens, repetitions, batch_sizes)
    sets = default_prompts(llm) if prompts is None else tuple(prompts)
    bench = _Bench(engine, Workload(llm, engine, max_tokens), repetitions, progress)
    progress("Measuring the memory")
    where = measure_machine(engine.config.device)
    rows = [row for each in sets for row in bench.sweep(each, lengths)]
    rows += [row for batch in batch_sizes for row in bench.batch(sets, batch)]
    return BenchmarkReport(llm.model, where, max_tokens, repetitions, tuple(rows))


def _check(engine: Engine, max_tokens: int, repetitions: int, batch_sizes: Sequence[int]) -> None:
    if max_tokens < 2 or repetitions < 1:
        raise RequestError(
            f"max_tokens={max_tokens} and repetitions={repetitions}: measuring takes at least 2 tokens and "
            "1 repetition."
        )
    largest = engine.config.max_batch_size
    wrong = [size for size in batch_sizes if not 1 <= size <= largest]
    if wrong:
        raise RequestError(
            f"The engine decodes 1 to {largest} requests together and {wrong[0]} are asked for: choose other "
            f"batch sizes, or set engine_options={{'max_batch_size': {max(wrong)}}}."
        )


class _Bench:
    """Runs ways to decode in turn with plain EFT."""

    def __init__(self, engine: Engine, workload: Workload, repetitions: int, tell: Progress) -> None:
        self._engine = engine
        self._workload = workload
        self._repetitions = repetitions
        self._tell = tell

    def sweep(self, prompts: PromptSet, lengths: Sequence[int]) -> list[Row]:
        """One request at a time: the base alone, every draft length, and the automatic one."""
        mixed = bool(self._workload.mixture(prompts, PLAIN).active())
        drafts = [Way(f"draft {length}", length) for length in lengths]
        return self._compare([prompts], prompts.name, 1, [*([BASE] if mixed else []), *drafts, AUTO])

    def batch(self, sets: Sequence[PromptSet], batch: int) -> list[Row]:
        """Prompts of all sets together, `batch` requests at a time."""
        return self._compare(sets, EVERYTHING, batch, [AUTO])

    def _compare(self, sets: Sequence[PromptSet], name: str, batch: int, ways: Sequence[Way]) -> list[Row]:
        for way in (PLAIN, *ways):
            self._tell(f"Warming up: {name}, {batch} at a time, {way.name}")
            decode(self._engine, self._workload.groups(sets, batch, way)[0])
        pairs: dict[Way, list[tuple[Run, Run]]] = {way: [] for way in ways}
        for repetition in range(self._repetitions):
            for way in ways:
                self._tell(f"{name}, {batch} at a time, {way.name}, run {repetition + 1}")
                # Whoever goes first in one repetition goes second in the next.
                order = (PLAIN, way) if repetition % 2 == 0 else (way, PLAIN)
                done = {each: self._run(sets, batch, each) for each in order}
                pairs[way].append((done[way], done[PLAIN]))
        plain = tuple(baseline for way in ways for _, baseline in pairs[way])
        rows = [self._row(sets, name, batch, PLAIN, plain, ())]
        for way in ways:
            runs, baselines = zip(*pairs[way], strict=True)
            rows.append(self._row(sets, name, batch, way, runs, baselines))
        return rows

    def _row(
        self,
        sets: Sequence[PromptSet],
        name: str,
        batch: int,
        way: Way,
        runs: tuple[Run, ...],
        baselines: tuple[Run, ...],
    ) -> Row:
        sizes = {weights_read(self._engine, self._workload.mixture(prompts, way)) for prompts in sets}
        size = sizes.pop() if batch == 1 and len(sizes) == 1 else None
        return Row(name, batch, way.name, runs, baselines, size)

    def _run(self, sets: Sequence[PromptSet], batch: int, way: Way) -> Run:
        groups = self._workload.groups(sets, batch, way)
        return summarize([decode(self._engine, group) for group in groups])
