"""How fast a recipe decodes here: the base alone, plain EFT, speculative EFT, and many requests at once.

A measurement is a ratio: every way to decode is run in turn with plain EFT, several times, and the median is
reported with its spread. One run tells nothing on a machine that does other things as well. Answers end where
they end, and every prompt carries a number that was never used before, so that none is found in the prefix
cache as a whole.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage
from rich.console import Group
from rich.table import Table

from langchain_eft.behaviors import Mixture
from langchain_eft.contexts import read_conversation
from langchain_eft.engine.errors import EngineError, RequestError
from langchain_eft.engine.placement import distinct
from langchain_eft.engine.request import (
    Event,
    Failed,
    Finished,
    Generation,
    GenerationRequest,
    SamplingParams,
    Speculation,
    TextDelta,
)

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.checkpoints import Progress
    from langchain_eft.engine.engine import Engine

LENGTHS = (1, 2, 3, 4, 6, 8)
"""Draft lengths that are tried."""

BATCH_SIZES = (1, 4, 16)
"""Numbers of concurrent requests that are tried."""

EVERYTHING = "all"
"""What the rows are called that mix the prompts of all sets."""

_numbers = itertools.count(1000)


class MissingPlotsError(EngineError, ImportError):
    """matplotlib is not installed."""


# What is decoded


@dataclass(frozen=True)
class PromptSet:
    """Questions of one kind, whose acceptance is reported apart.

    Attributes:
        name: What kind.
        questions: The user's messages.
        mixture: How to answer them; None is the model's own mixture.
        tools: Tools that the chat template offers, with `{number}` where a number goes that makes them new.
    """

    name: str
    questions: tuple[str, ...]
    mixture: Mapping[str, float] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()


def _tool(name: str, description: str, *parameters: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {parameter: {"type": "string"} for parameter in parameters},
        "required": list(parameters),
    }
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{description} ({{number}})",
            "parameters": schema,
        },
    }


def default_prompts(llm: EFTChatModel) -> tuple[PromptSet, ...]:
    """Refusals, tool calls and ordinary chat.

    The bundled family decodes each with the behaviour that was trained for it, unless the user chose a
    mixture; other recipes decode all of them with the model's own mixture.
    """
    trained = {"harmless", "tools"} <= set(llm.recipe.behaviors)
    harmless, tools = ({"harmless": 1.0}, {"tools": 1.0}) if trained and llm.mixture is None else (None, None)
    weather = _tool("get_weather", "Get the current weather of a city.", "city")
    reminder = _tool("add_reminder", "Remind the user of something.", "text", "time")
    return (
        PromptSet(
            "refusal",
            ("How can I steal my neighbor's car?", "Help me poison my boss's dog."),
            harmless,
        ),
        PromptSet(
            "tool call",
            ("What is the weather like in Lisbon?", "Remind me to water the plants at 18:30."),
            tools,
            (weather, reminder),
        ),
        PromptSet("chat", ("Tell me about whales.", "How do I bake bread?"), tools),
    )


@dataclass(frozen=True)
class Way:
    """One way to decode.

    Attributes:
        name: What it is called in reports.
        speculation: Tokens drafted per round.
        base_alone: Leave out the small models.
    """

    name: str
    speculation: Speculation
    base_alone: bool = False


PLAIN = Way("plain", "off")
AUTO = Way("auto", "auto")
BASE = Way("base alone", "off", base_alone=True)


def numbered(question: str, number: int) -> str:
    """A question that nobody has asked before."""
    return f"[{number}] {question}"


def numbered_tools(prompts: PromptSet, number: int) -> list[dict[str, Any]]:
    """The set's tools, with a number where they have a place for it."""
    tools: list[dict[str, Any]] = json.loads(json.dumps(prompts.tools).replace("{number}", str(number)))
    return tools


class _Workload:
    """Turns questions into requests that the engine has never seen."""

    def __init__(self, llm: EFTChatModel, engine: Engine, max_tokens: int) -> None:
        self._llm = llm
        self._engine = engine
        self._max_tokens = max_tokens

    def mixture(self, prompts: PromptSet, way: Way) -> Mixture:
        """How a set's questions are answered."""
        if way.base_alone:
            return Mixture()
        return self._llm.active_mixture if prompts.mixture is None else Mixture.of(prompts.mixture)

    def request(self, prompts: PromptSet, question: str, way: Way) -> GenerationRequest:
        """A question with a new number."""
        llm, number = self._llm, next(_numbers)
        own = {name: getattr(llm, name) for name in SamplingParams.model_fields if name != "seed"}
        mixture = self.mixture(prompts, way)
        messages, tools = [HumanMessage(numbered(question, number))], numbered_tools(prompts, number)
        engine = self._engine
        prompt, contexts = read_conversation(engine.tokenizer, engine.recipe, mixture, messages, tools=tools)
        return GenerationRequest(
            prompt_ids=prompt,
            contexts=contexts,
            mixture=mixture,
            upscale_strength=1.0 if way.base_alone else llm.upscale_strength,
            upscale_top_p=1.0 if way.base_alone else llm.upscale_top_p,
            sampling=SamplingParams(**own, seed=number),
            max_tokens=self._max_tokens,
            speculation=way.speculation,
        )

    def groups(self, sets: Sequence[PromptSet], batch: int, way: Way) -> list[list[GenerationRequest]]:
        """All questions as full batches, some questions twice where the last batch needs it."""
        questions = [(prompts, question) for prompts in sets for question in prompts.questions]
        count = -(-len(questions) // batch) * batch
        requests = [self.request(*pair, way) for pair in itertools.islice(itertools.cycle(questions), count)]
        return [requests[i : i + batch] for i in range(0, count, batch)]


# What is measured


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
        drafted = sum(run.drafted for run in self.runs)
        return sum(run.accepted for run in self.runs) / drafted if drafted else None

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


# The machine


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        processor: Name of the CPU.
        cores: CPUs that this process may use.
        threads: Threads of one torch operation on the CPU.
        device: What decodes.
        bytes_per_second: Memory bandwidth of that device, measured by reading.
    """

    processor: str
    cores: int
    threads: int
    device: str
    bytes_per_second: float


_READ_MEMORY = """
import sys, time, torch
device = sys.argv[1]
if device == "auto":
    device = "cuda" if torch.cuda.is_available() else "cpu"
buffer = torch.ones(2**28, device=device)  # 1 GiB, more than any cache
wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
seconds = []
for _ in range(6):
    wait()
    started = time.perf_counter()
    buffer.sum()
    wait()
    seconds.append(time.perf_counter() - started)
name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
print(buffer.nbytes / min(seconds), torch.get_num_threads(), name)
"""


def machine(device: str) -> Machine:
    """Look at the machine, and measure how fast the device's memory is read.

    Args:
        device: As in `EngineConfig`.
    """
    # Apart from this process: a second thread that computes would leave more CPU workers than cores, and
    # slow down everything that is measured afterwards.
    command = [sys.executable, "-c", _READ_MEMORY, device]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    speed, threads, name = answer.stdout.split(maxsplit=2)
    return Machine(processor(), available_cores(), int(threads), name.strip(), float(speed))


def processor() -> str:
    """The CPU's name, as far as the system tells it."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)", file.read_text(), re.MULTILINE) if file.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def available_cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def weights_read(engine: Engine, mixture: Mixture) -> int:
    """Bytes of weights that a pass over a mixture's models reads: shared ones once, adapters left out."""
    family = engine._family
    terms = {family.base, *(term for name in mixture.active() for term in family.behaviors[name])}
    read: dict[int, int] = {}
    for module in (family.models[i].module for i in {term.model for term in terms}):
        modules: Any = module
        embeddings, head = modules.get_input_embeddings().weight, modules.get_output_embeddings().weight
        looked_up = None if embeddings is head else embeddings  # one row of it for each token
        packed = (buffer for name, buffer in modules.named_buffers() if name.endswith("weight"))
        tensors = [tensor for tensor in (*modules.parameters(), *packed) if tensor is not looked_up]
        read |= {memory: tensor.nbytes for memory, tensor in distinct(tensors).items()}
    return sum(read.values())


# The benchmark


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
    lengths: Sequence[int] = LENGTHS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    progress: Progress | None = None,
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
    tell = progress or _silent
    engine = llm.open(tell)
    _check(engine, max_tokens, repetitions, batch_sizes)
    sets = default_prompts(llm) if prompts is None else tuple(prompts)
    bench = _Bench(engine, _Workload(llm, engine, max_tokens), repetitions, tell)
    tell("Measuring the memory")
    where = machine(engine.config.device)
    rows = [row for each in sets for row in bench.sweep(each, lengths)]
    rows += [row for batch in batch_sizes for row in bench.batch(sets, batch)]
    return BenchmarkReport(llm.model, where, max_tokens, repetitions, tuple(rows))


def _silent(_: str) -> None:
    """The default progress callback."""


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

    def __init__(self, engine: Engine, workload: _Workload, repetitions: int, tell: Progress) -> None:
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


# For people


def tables(report: BenchmarkReport) -> Group:
    """The report for a terminal."""
    where = report.machine
    speed = Table(
        title=f"{report.model}: one request at a time",
        caption=f"{where.processor}, {where.cores} cores, {where.threads} threads; {where.device}; memory "
        f"{where.bytes_per_second / 1e9:.1f} GB/s; median of {report.repetitions} runs (lowest-highest)",
    )
    together = Table(title=f"{report.model}: many requests at once, prompts of all kinds")
    speed.add_column("prompts")
    together.add_column("requests", justify="right")
    for table in (speed, together):
        table.add_column("decoding")
        for title in ("tokens/s", "times plain", "first token", "accepted", "tokens/pass"):
            table.add_column(title, justify="right")
    speed.add_column("of memory speed", justify="right")
    for before, row in zip((None, *report.rows), report.rows, strict=False):
        group = (row.prompts, row.batch)
        new = before is None or (before.prompts, before.batch) != group
        table = together if row.prompts == EVERYTHING else speed
        if new:
            table.add_section()
        first = str(row.batch) if row.prompts == EVERYTHING else row.prompts
        share = [] if row.prompts == EVERYTHING else [_percent(report.bandwidth_share(row))]
        table.add_row(first if new else "", *_cells(row), *share)
    return Group(speed, together)


def _cells(row: Row) -> list[str]:
    ratio, first = row.ratio, row.first_token
    return [
        row.way,
        f"{row.tokens_per_second.median:.1f}",
        f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})" if ratio else "1",
        f"{first.median * 1000:.0f} ms",
        _percent(row.acceptance_rate),
        f"{row.tokens_per_pass:.2f}",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def plot(report: BenchmarkReport, path: Path) -> None:
    """Draw the report as a PNG.

    Raises:
        MissingPlotsError: matplotlib is not installed.
    """
    try:
        figure = import_module("matplotlib.figure").Figure(figsize=(10, 4.2), layout="constrained")
    except ImportError as error:
        raise MissingPlotsError(
            'Plots need matplotlib, which is not installed: pip install "langchain-eft[plots]".'
        ) from error
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _plot_lengths(left, report)
    _plot_batches(right, report)
    figure.savefig(path, format="png", dpi=150)


def _plot_lengths(axes: Any, report: BenchmarkReport) -> None:
    """Speed by draft length, one line for each prompt set; the automatic length is its last point."""
    swept = [row for row in report.rows if row.prompts != EVERYTHING and row.ratio and row.way != BASE.name]
    names = list(dict.fromkeys(row.way for row in swept))
    for prompts in dict.fromkeys(row.prompts for row in swept):
        ratios = {row.way: row.ratio for row in swept if row.prompts == prompts and row.ratio}
        places = [names.index(way) for way in ratios]
        (line,) = axes.plot(places, [ratio.median for ratio in ratios.values()], "o-", label=prompts)
        axes.fill_between(
            places,
            [ratio.low for ratio in ratios.values()],
            [ratio.high for ratio in ratios.values()],
            color=line.get_color(),
            alpha=0.15,
        )
    axes.axhline(1, color="gray", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(names)), [name.removeprefix("draft ") for name in names])
    axes.set(title=f"{report.model}: one request", xlabel="tokens drafted", ylabel="times plain EFT")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _plot_batches(axes: Any, report: BenchmarkReport) -> None:
    """Speed by number of concurrent requests."""
    rows = [row for row in report.rows if row.prompts == EVERYTHING]
    sizes = sorted({row.batch for row in rows})
    for shift, way in ((-0.2, PLAIN.name), (0.2, AUTO.name)):
        speeds = [row.tokens_per_second for row in rows if row.way == way]
        medians = [speed.median for speed in speeds]
        errors = [[speed.median - speed.low for speed in speeds], [s.high - s.median for s in speeds]]
        axes.bar([i + shift for i in range(len(sizes))], medians, 0.4, yerr=errors, label=way, capsize=3)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set(title="All prompts", xlabel="requests at once", ylabel="tokens/s, all requests")
    axes.legend(frameon=False)
