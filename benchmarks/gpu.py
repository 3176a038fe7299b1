"""`python -m benchmarks.gpu`: our engine on one GPU, compared with the memory bandwidth and with its rivals.

The script makes weights of real shapes itself (see synthetic.py). So it downloads nothing, and the acceptance
rate can be set. It ends within `--minutes`, checks before it measures, and measures the most important rows
first. The table names rows without enough time or memory. Results are written as soon as they are there, and
the next run with the same `--output` goes on where this one ended.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer

from benchmarks.gpu_kernels import kernel_checks, profile
from benchmarks.rivals.arena import report_progress
from benchmarks.rivals.proxy_loop import ProxyLoop
from benchmarks.synthetic import (
    BEHAVIOR,
    CHECK,
    SCALES,
    TINY,
    Scale,
    SyntheticFamily,
    random_prompts,
)
from langchain_eft import EFTChatModel
from langchain_eft.diagnostics.bench import Spread, summarize, take_turns, weights_read
from langchain_eft.diagnostics.decoded_answer import decode
from langchain_eft.diagnostics.verify.statistics import log_p_excess, z_test
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.decoding.formula import combine
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.events import acceptance_rate
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.linear import product
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams

BASE, PLAIN, AUTO = "base alone", "plain EFT", "speculative EFT, auto"
SMALL_ALONE = "small model alone"
PROXY, GENERATE, ASSISTED = "proxy loop", "generate, base alone", "assisted, base alone"
RIVALS = {PROXY, GENERATE, ASSISTED}
PARTS = ("kernels", "checks", "ours", "rivals")
COLUMNS = (
    "family",
    "batch",
    "context",
    "",
    "tokens/s",
    "ms a round",
    "of bandwidth",
    "tokens/round",
    "accepted",
    f"times {BASE}",
    f"times {PLAIN}",
    f"times {PROXY}",
)


@dataclass(frozen=True)
class Setting:
    """The rows and sizes of a run of the whole benchmark.

    Attributes:
        scales: The families.
        batches: The numbers of concurrent requests.
        contexts: The lengths of the prompts.
        tokens: The length of an answer.
        rival_tokens: The length of an answer of slow rivals.
        repetitions: The number of measured runs.
        rates: The acceptance rates; the first has the most rows.
        lengths: All draft lengths; rows with fewer settings use those from 4 to 8.
        check: The family for the exactness check.
        samples: The number of answers in the z-test.
    """

    scales: tuple[Scale, ...]
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    tokens: int
    rival_tokens: int
    repetitions: int
    rates: tuple[float, ...]
    lengths: tuple[int, ...]
    check: Scale
    samples: int


FULL = Setting(
    scales=tuple(SCALES.values()),
    batches=(1, 8, 32),
    contexts=(512, 8192),
    tokens=64,
    rival_tokens=24,
    repetitions=3,
    rates=(0.9, 0.7, 0.85, 0.92),
    lengths=(1, 2, 4, 8, 16),
    check=CHECK,
    samples=64,
)
SMALL = Setting(
    scales=(TINY,),
    batches=(1, 2),
    contexts=(12, 24),
    tokens=8,
    rival_tokens=6,
    repetitions=2,
    rates=(0.9, 0.7),
    lengths=(1, 4),
    check=TINY,
    samples=8,
)


@dataclass
class Measurement:
    """The measurement of one decoding mode for one batch size and context.

    Attributes:
        family: The name of the scale.
        mode: The decoding mode.
        batch: The number of concurrent requests.
        context: The length of the prompts.
        acceptance: The acceptance rate that was calculated for the family; None in rows without a rate.
        tokens_per_second: The speed over the whole batch, without prompts; one per repetition.
        ms_per_round: Milliseconds between the rounds in which answers grow.
        tokens_per_round: Tokens that an answer gains in a round.
        accepted: The share of draft tokens that were accepted; None if it is not reported.
        floor_ms: Milliseconds to read a round's weights, keys and values at copy bandwidth.
        ratios: The speed relative to other modes, by name, one per repetition.
        note: The reason if it was not measured.
    """

    family: str
    mode: str
    batch: int
    context: int
    acceptance: float | None = None
    tokens_per_second: list[float] = field(default_factory=list)
    ms_per_round: list[float] = field(default_factory=list)
    tokens_per_round: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    floor_ms: list[float] = field(default_factory=list)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    note: str | None = None

    def add(self, run: Run) -> None:
        """Add a repetition."""
        self.tokens_per_second.append(run.tokens / run.seconds)
        self.ms_per_round.append(1000 * run.seconds / run.rounds)
        self.tokens_per_round.append(run.tokens / run.rounds / self.batch)
        if run.accepted is not None:
            self.accepted.append(run.accepted)
        if run.floor is not None:
            self.floor_ms.append(1000 * run.floor)

    def compare(self, others: Sequence[Measurement]) -> None:
        """Record the ratios to rows of the same work."""
        for other in others:
            if other is not self and other.tokens_per_second and self.tokens_per_second:
                pairs = zip(self.tokens_per_second, other.tokens_per_second, strict=False)
                self.ratios[other.mode] = [speed / baseline for speed, baseline in pairs]


@dataclass(frozen=True)
class Run:
    """One run of a decoding mode.

    Attributes:
        tokens: Tokens of all answers, without those of the prompts' pass.
        seconds: The seconds for these tokens.
        rounds: The number of times that an answer grew.
        accepted: The share of draft tokens that were accepted, or None.
        floor: The seconds to read a round's bytes at copy bandwidth, or None.
    """

    tokens: int
    seconds: float
    rounds: float
    accepted: float | None = None
    floor: float | None = None


class Report:
    """Rows and checks, written to disk after every change.

    Args:
        device: The device that everything runs on.
        path: The JSON file, or None. What it has already is not measured again.
        deadline: The time to stop, on the clock of `time.monotonic`.
    """

    def __init__(self, device: torch.device, path: Path | None, deadline: float) -> None:
        self.rows: list[Measurement] = []
        self.checks: dict[str, Any] = {}
        self.notes: list[str] = []
        self.done: list[str] = []
        self._path, self.deadline = path, deadline
        if path and path.exists():
            earlier = json.loads(path.read_text())
            self.rows = [Measurement(**row) for row in earlier["rows"] if row["tokens_per_second"]]
            self.checks, self.done = earlier["checks"], earlier["done"]
        self.bandwidth = copy_bandwidth(device)
        self.about = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "copy_bytes_per_second": self.bandwidth,
            "torch": torch.__version__,
        }

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - time.monotonic()

    def begin(self, *key: Any) -> Measurement:
        """Add a row, or take that of an earlier run."""
        new = Measurement(*key)
        for row in self.rows:
            if (row.family, row.mode, row.batch, row.context, row.acceptance) == key:
                return row
        self.rows.append(new)
        return new

    def check(self, name: str, work: Callable[[], Any]) -> None:
        """Do a check that no earlier run has done, and record its outcome."""
        if name not in self.checks:
            self.attempt([], lambda: self._record(name, work()), name=f"{name}: ")

    def _record(self, name: str, result: Any) -> None:
        self.checks[name] = result
        report_progress(f"{name}: {result}")

    def part(self, name: str, work: Callable[[], Any]) -> None:
        """Do a part of the benchmark, unless an earlier run has done all of it."""
        if name in self.done:
            return
        missing = len(self.notes) + sum(row.note is not None for row in self.rows)
        self.attempt([], work)
        if missing == len(self.notes) + sum(row.note is not None for row in self.rows):
            self.done.append(name)
            self.save()

    def save(self) -> None:
        """Write everything to disk."""
        if self._path:
            self._path.write_text(json.dumps(self.summary(), indent=1))

    def summary(self) -> dict[str, Any]:
        """Return everything for JSON."""
        rows = [asdict(row) for row in self.rows]
        found = {"checks": self.checks, "notes": self.notes, "done": self.done, "rows": rows}
        return {**self.about, **found}

    def attempt(
        self, rows: Sequence[Measurement], work: Callable[[], Any], needed: float = 5.0, name: str = ""
    ) -> None:
        """Do some work if there is time for it, and no earlier run has done it.

        If it fails, record the reason and continue.

        Args:
            rows: The rows that the work measures.
            work: The function that measures them.
            needed: The seconds that must be left.
            name: What the reason is about, if it is not about rows.
        """
        if rows and all(row.tokens_per_second for row in rows):
            return
        try:
            if self.seconds_left >= needed:
                work()
            else:
                self._note(rows, f"{name}no time left")
        except Exception as error:  # noqa: BLE001  (what else there is goes on)
            self._note(rows, f"{name}{type(error).__name__}: {str(error)[:200]}")
        for row in rows:
            report_progress(line(row))
        self.save()

    def _note(self, rows: Sequence[Measurement], reason: str) -> None:
        for row in rows:
            row.note = reason
        if not rows:
            self.notes.append(reason)
            report_progress(reason)


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes per second that a copy reads and writes: a bound on decoding."""
    source = torch.zeros(2**30 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = [timed(lambda: target.copy_(source), device) for _ in range(8)]
    return 2 * source.nbytes / sorted(seconds)[len(seconds) // 2]


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of some work on a device."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clean(device: torch.device) -> None:
    """Free the memory of models that are no longer used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


# Our engine


class OurEngine:
    """Our engine with a synthetic family.

    Args:
        family: The family that it decodes.
        options: The settings of the engine.
        small: Whether to decode the small tuned model alone, as the base.
    """

    def __init__(self, family: SyntheticFamily, options: dict[str, Any], *, small: bool = False) -> None:
        self.family = family
        dtype = str(family.dtype).removeprefix("torch.")
        self.llm = EFTChatModel(
            model=str(family.folder / ("tuned" if small else "base")),
            behaviors={} if small else family.recipe.behaviors,
            mixture={} if small else {BEHAVIOR: 1.0},
            device=str(family.device),
            dtype=dtype,
            temperature=1.0,
            engine_options=options,
        )
        # On a CPU, weights would be packed, and the family could not set its acceptance rate in place.
        plain = patch("langchain_eft.engine.models.placement.can_compile", lambda: False)
        with patch("langchain_eft.engine.loading.family.load_module", family.load), plain:
            self.engine: Engine = self.llm.engine

    def close(self) -> None:
        """Free the weights."""
        self.engine.close()
        self.family.forget()
        clean(self.family.device)

    def request(
        self, prompt: Sequence[int], mode: str, tokens: int, seed: int, speculation: Any
    ) -> GenerationRequest:
        """One completion."""
        return GenerationRequest(
            prompt_ids=tuple(prompt),
            mixture=Mixture.of({} if mode in {BASE, SMALL_ALONE} else {BEHAVIOR: 1.0}),
            sampling=SamplingParams(temperature=1.0, seed=seed),
            max_tokens=tokens,
            speculation=speculation,
        )

    def run(
        self, prompts: Sequence[Sequence[int]], mode: str, speculation: Any, tokens: int, seed: int
    ) -> tuple[Run, list[list[int]]]:
        """Decode a batch. Return the measurement without the floor, and the answers."""
        work = [self.request(p, mode, tokens, seed + i, speculation) for i, p in enumerate(prompts)]
        answers = decode(self.engine, work)
        run = summarize([answers])
        accepted = acceptance_rate(run.accepted, run.drafted)
        measured = Run(run.tokens, run.seconds, run.passes / len(prompts), accepted)
        return measured, [list(answer.tokens) for answer in answers]

    def bytes_of_round(self, mode: str, batch: int, positions: float, draft_tokens: float) -> float:
        """Return the bytes of weights, keys and values that a round reads.

        Args:
            mode: BASE or any other mode.
            batch: The number of rows.
            positions: The length of each row's context.
            draft_tokens: The number of tokens drafted in the round; each takes a pass of the tuned model.
        """
        family = self.engine.family
        weights = float(weights_read(self.engine, Mixture.of({})))
        passes = {family.base.model: 1.0}
        if mode not in {BASE, SMALL_ALONE}:
            tuned, reference = (term.model for term in family.behaviors[BEHAVIOR])
            passes |= {tuned: 1.0 + draft_tokens, reference: 1.0}
            small = weights_read(self.engine, Mixture.of({BEHAVIOR: 1.0})) - weights
            weights += small / 2 * (2.0 + draft_tokens)
        cached = sum(
            count * sum(family.models[model].bytes_per_token.values()) for model, count in passes.items()
        )
        return weights + cached * batch * positions


def our_rows(ours: OurEngine, setting: Setting, report: Report, *, thorough: bool) -> None:
    """Measure every decoding mode.

    Args:
        ours: The engine.
        setting: The rows and sizes to measure.
        report: The report to add to.
        thorough: Whether to measure every batch and context, and one request at every acceptance rate;
            otherwise the first two batches at the first context and rate.
    """
    few_lengths = {length for length in setting.lengths if 4 <= length <= 8}
    for rate in setting.rates if thorough else setting.rates[:1]:
        calculated, first = round(ours.family.set_acceptance(rate), 4), rate == setting.rates[0]
        contexts = setting.contexts if first and thorough else setting.contexts[:1]
        batches = setting.batches if first else setting.batches[:1]
        lengths = setting.lengths if first and thorough else sorted(few_lengths)
        for context in contexts:
            for batch in batches if thorough else batches[:2]:
                speculative = {f"speculative EFT, K={k}": k for k in lengths} | {AUTO: "auto"}
                modes: dict[str, Any] = {BASE: "off", PLAIN: "off", **speculative}
                _our_group(ours, setting, report, (batch, context), modes, calculated)


def _our_group(
    ours: OurEngine,
    setting: Setting,
    report: Report,
    work: tuple[int, int],
    modes: dict[str, Any],
    acceptance: float | None,
) -> None:
    """Measure the decoding modes of one batch size and context, in turns."""
    rows = {mode: report.begin(ours.family.scale.name, mode, *work, acceptance) for mode in modes}
    report.attempt(list(rows.values()), partial(_our_turns, ours, setting, report, rows, modes))


def _our_turns(
    ours: OurEngine, setting: Setting, report: Report, rows: dict[str, Measurement], modes: dict[str, Any]
) -> None:
    first_row = next(iter(rows.values()))
    prompts = random_prompts(ours.family.scale, first_row.batch, first_row.context)
    needed, available = (
        first_row.batch * (first_row.context + setting.tokens + 32),
        ours.engine.stats().free_blocks * 16,
    )
    if needed > available:
        raise ValueError(f"{needed} tokens of KV memory are needed, but there are {available}")

    def contestant(mode: str, speculation: Any) -> Callable[[int], Run]:
        return lambda turn: ours.run(prompts, mode, speculation, setting.tokens, 100 * turn + 100)[0]

    # The first round captures graphs and fills the prefix cache.
    contestants = {mode: contestant(mode, speculation) for mode, speculation in modes.items()}
    for mode, runs in take_turns(contestants, setting.repetitions, deadline=report.deadline).items():
        for run in runs:
            per_round = run.tokens / run.rounds / first_row.batch
            draft_tokens = (per_round - 1) / run.accepted if run.accepted else 0.0
            positions = first_row.context + setting.tokens / 2
            size = ours.bytes_of_round(mode, first_row.batch, positions, draft_tokens)
            rows[mode].add(replace(run, floor=size / report.bandwidth))
    for row in rows.values():
        row.compare([rows[mode] for mode in (BASE, PLAIN) if mode in rows])
    _compare_with_rivals(report)


# Rivals


def rival_rows(family: SyntheticFamily, setting: Setting, report: Report) -> None:
    """Measure the proxy loop for every batch, and transformers' generation for one request."""
    scale_name, context = family.scale.name, setting.contexts[0]
    models = {name: family.module(name, "sdpa") for name in ("base", "tuned", "reference")}
    calculated = round(family.set_acceptance(setting.rates[0]), 4)
    loop = ProxyLoop(*models.values(), [0])
    for batch in setting.batches:
        row = report.begin(scale_name, PROXY, batch, context)
        prompts = random_prompts(family.scale, batch, context)
        report.attempt([row], partial(_rival_turns, partial(_proxy, loop, prompts, setting), setting, row))
    prompt = torch.tensor(random_prompts(family.scale, 1, context), device=family.device)
    for mode, acceptance, options in (
        (ASSISTED, calculated, {"assistant_model": models["tuned"]}),
        # On a GPU, transformers compiles the decoding step of models with static caches.
        (GENERATE, None, {"cache_implementation": "static"}),
    ):
        row = report.begin(scale_name, mode, 1, context, acceptance)
        generate = partial(_generate, models["base"], prompt, setting.tokens, options)
        report.attempt(
            [row],
            partial(_rival_turns, generate, setting, row),
            needed=60.0 if family.device.type == "cuda" else 0.0,
        )
    _compare_with_rivals(report)


def _compare_with_rivals(report: Report) -> None:
    for row in report.rows:
        work = (row.family, row.batch, row.context)
        same_work = [each for each in report.rows if (each.family, each.batch, each.context) == work]
        if row.mode not in RIVALS:
            row.compare([each for each in same_work if each.mode in RIVALS])


def _rival_turns(decode: Callable[[int], Run], setting: Setting, row: Measurement) -> None:
    for run in take_turns({row.mode: decode}, setting.repetitions)[row.mode]:
        row.add(run)


def _proxy(loop: ProxyLoop, prompts: list[list[int]], setting: Setting, turn: int) -> Run:
    tokens = setting.rival_tokens if turn >= 0 else 2
    _, moments = loop.decode(prompts, tokens, 1.0, turn + 1)
    return Run(len(prompts) * (tokens - 1), moments[-1] - moments[0], tokens - 1)


class _TimedStreamer:
    """A streamer that records the times at which answers grow."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, int]] = []

    def put(self, tokens: torch.Tensor) -> None:  # which transformers has moved to the CPU
        self.arrivals.append((time.perf_counter(), tokens.numel()))

    def end(self) -> None:
        """Do nothing: no text is held back."""


def _generate(base: Any, prompt: torch.Tensor, tokens: int, options: dict[str, Any], turn: int) -> Run:
    torch.manual_seed(turn + 1)
    streamer = _TimedStreamer()
    base.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        streamer=streamer,
        **options,
    )
    _, first, *rest = streamer.arrivals  # the prompt comes first
    return Run(sum(count for _, count in rest), rest[-1][0] - first[0], len(rest))


# Checks


def exactness(setting: Setting, folder: Path, device: torch.device, report: Report) -> None:
    """Check for equal tokens with graphs on and off, and for the right distribution."""
    same = "same tokens with graphs on and off"
    if same in report.checks:
        return
    family = SyntheticFamily(setting.check, folder, device, working_dtype(device), 2048).save()
    answers: dict[bool, list[list[int]]] = {}
    for graphs in (True, False):
        ours = OurEngine(family, {"cuda_graphs": graphs, "kv_cache_tokens": 2**14})
        family.set_acceptance(setting.rates[0])
        prompts = random_prompts(setting.check, 3, 20)
        answers[graphs] = [
            answer for k in ("off", 1, 4, 8) for answer in ours.run(prompts, PLAIN, k, setting.tokens, 7)[1]
        ]
        if graphs:
            report.check("z-test of speculative samples", partial(_sampling_test, ours, setting))
            report.check("LangChain streaming overhead", partial(streaming_overhead, ours, setting))
        ours.close()
    report.check(same, lambda: answers[True] == answers[False])


def _sampling_test(ours: OurEngine, setting: Setting) -> dict[str, float]:
    """Compare sampled answers with the probabilities of the engine's own passes, by a z-test."""
    prompts = random_prompts(setting.check, setting.samples, 8, seed=1)
    sums = []
    for start in range(0, len(prompts), 8):
        batch = prompts[start : start + 8]
        for prompt, answer in zip(batch, ours.run(batch, PLAIN, 4, 24, 1000 + start)[1], strict=True):
            log_p = engine_log_p(ours.engine, prompt, answer)
            sums.append(log_p_excess(log_p, answer, SamplingParams(temperature=1.0)))
    z, p_value = z_test(sums)
    return {"z": z, "p_value": p_value}


@torch.inference_mode()
def engine_log_p(engine: Engine, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Return log p of an answer's tokens by the engine's kernels, in one pass per model: [T, V] float64."""
    family, ids = engine.family, [*prompt, *answer[:-1]]
    tuned, reference = family.behaviors[BEHAVIOR]
    logits = []
    for term in (family.base, tuned, reference):
        model = family.models[term.model]
        batch = pack([Chunk(ids, 0, term.variant, [0])], KVPool(len(ids)), len(ids), model.device)
        rows = model(batch, [term.variant], torch.arange(len(prompt) - 1, len(ids), device=model.device))
        logits.append((rows if model.head is None else product(rows, model.head)).float())
    count = len(answer)
    index = torch.arange(3 * count, device=logits[0].device).view(3, count).t()
    weights = torch.tensor([[1.0, 1.0, -1.0]], device=index.device).expand(count, 3)
    total = combine.definition(torch.cat(logits), index, weights).double()
    return total.masked_fill(~family.vocabulary, -1e9).log_softmax(-1).cpu()


def streaming_overhead(ours: OurEngine, setting: Setting) -> float:
    """Measure how much longer a token takes through `EFTChatModel.stream` than from the engine."""
    tokens, text = 4 * setting.tokens, "w5 w6 w7 w8"
    prompt = ours.engine.tokenizer(text).input_ids

    def gaps(stream: Iterable[object]) -> list[float]:
        moments = [time.perf_counter() for _ in stream]
        return [after - before for before, after in pairwise(moments)]

    def engine(turn: int) -> list[float]:
        return gaps(ours.engine.stream(ours.request(prompt, PLAIN, tokens, turn + 1, "off")))

    def langchain(turn: int) -> list[float]:
        update = {"max_tokens": tokens, "seed": turn + 1, "speculation": "off"}
        return gaps(ours.llm.model_copy(update=update).stream(text))

    measured = take_turns({"engine": engine, "LangChain": langchain}, 2 * setting.repetitions)
    medians = {name: Spread.of(list(chain(*each))).median for name, each in measured.items()}
    return medians["LangChain"] / medians["engine"] - 1


# The whole benchmark


def working_dtype(device: torch.device) -> torch.dtype:
    """Return the precision of the models."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def run(
    setting: Setting,
    device: torch.device,
    report: Report,
    parts: Sequence[str] = PARTS,
) -> None:
    """Do the parts in their order, as far as the time allows."""
    positions = max(setting.contexts) + setting.tokens + 64
    engine_options = {
        "max_batch_size": max(setting.batches),
        "max_num_batched_tokens": 4096,
        "kv_cache_fraction": 0.8,
        "max_model_len": positions,
    }
    with tempfile.TemporaryDirectory() as folder:

        def family(scale: Scale) -> SyntheticFamily:
            scale_folder = _folder(folder, scale.name)
            return SyntheticFamily(scale, scale_folder, device, working_dtype(device), positions).save()

        for part in parts:
            if part == "kernels":
                _check_kernels(device, report)
            elif part == "checks":
                work = partial(exactness, setting, _folder(folder, "check"), device, report)
                report.part(part, work)
            elif part == "ours":
                for scale in setting.scales:
                    for measure in (_our_family, _small_alone):
                        work = partial(measure, partial(family, scale), setting, report, engine_options)
                        report.part(f"{measure.__name__[1:]}, {scale.name}", work)
                        clean(device)
            else:
                report.part(part, lambda: rival_rows(family(setting.scales[0]), setting, report))
                clean(device)


def _check_kernels(device: torch.device, report: Report) -> None:
    if device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        for name, work in kernel_checks(device):
            report.check(name, work)


def _our_family(
    make: Callable[[], SyntheticFamily], setting: Setting, report: Report, options: dict[str, Any]
) -> None:
    family = make()
    thorough, name = family.scale == setting.scales[0], family.scale.name
    started = time.perf_counter()
    ours = OurEngine(family, options)
    opened = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() / 2**30 if family.device.type == "cuda" else None
    try:
        report.check(f"opening {name}", lambda: {"seconds": opened, "peak GiB": peak})
        if thorough:
            report.check(f"profile of {name}", partial(_profile, ours, setting))
        our_rows(ours, setting, report, thorough=thorough)
    finally:
        ours.close()


def _profile(ours: OurEngine, setting: Setting) -> dict[str, Any]:
    """The kernels of a run of one request with drafts of 4 tokens."""
    prompts = random_prompts(ours.family.scale, 1, setting.contexts[0])
    measured = [ours.run(prompts, PLAIN, 4, setting.tokens, 1)[0]]  # this run records the rounds

    def run() -> None:
        measured.append(ours.run(prompts, PLAIN, 4, setting.tokens, 2)[0])
        synchronize(ours.family.device)

    found = profile(run, ours.family.device)
    return {"rounds": measured[1].rounds, "ms": 1000 * measured[1].seconds} | found


def _small_alone(
    make: Callable[[], SyntheticFamily], setting: Setting, report: Report, options: dict[str, Any]
) -> None:
    """Measure a step of the small model: the cost of each drafted token."""
    ours = OurEngine(make(), options, small=True)
    try:
        work = setting.batches[0], setting.contexts[0]
        _our_group(ours, setting, report, work, {SMALL_ALONE: "off"}, None)
    finally:
        ours.close()


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent) / name.replace(" ", "")
    folder.mkdir(exist_ok=True)
    return folder


def line(row: Measurement) -> str:
    """Describe a row in words."""
    work = f"{row.family}, {row.mode}, batch {row.batch}, context {row.context}"
    if not row.tokens_per_second:
        return f"{work}: not measured ({row.note})"
    speed, gap = Spread.of(row.tokens_per_second), Spread.of(row.ms_per_round)
    return f"{work}: {speed.median:.1f} tokens/s, {gap.median:.2f} ms a round"


def table(report: Report) -> str:
    """Format all rows as markdown."""
    gigabytes = report.bandwidth / 1e9
    lines = [
        f"{report.about['device']}, copy bandwidth {gigabytes:.0f} GB/s, torch {report.about['torch']}",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + " --- |" * len(COLUMNS),
    ]
    for row in report.rows:
        drafts = row.acceptance is not None and row.mode not in {BASE, PLAIN}
        calculated = f" ({row.acceptance:.2f})" if drafts else ""
        cells = [row.family, row.batch, row.context, row.mode + calculated]
        if row.tokens_per_second:
            shares = [floor / ms for floor, ms in zip(row.floor_ms, row.ms_per_round, strict=False)]
            cells += [
                _spread(row.tokens_per_second, ".1f"),
                _spread(row.ms_per_round, ".2f"),
                _spread(shares, ".0%"),
                _spread(row.tokens_per_round, ".2f"),
                _spread(row.accepted, ".0%"),
                *(_spread(row.ratios.get(mode, []), ".2f", extremes=True) for mode in (BASE, PLAIN, PROXY)),
            ]
        else:
            cells += [row.note or "", *[""] * (len(COLUMNS) - 5)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    checks = [f"* {name}: {result}" for name, result in report.checks.items()]
    return "\n".join([*lines, "", *checks, *(f"* {note}" for note in report.notes)])


def _spread(values: Sequence[float], style: str, *, extremes: bool = False) -> str:
    if not values:
        return "-"
    spread = Spread.of(values)
    return f"{spread:{style}}" if extremes else f"{spread.median:{style}}"


def plot(report: Report, path: Path) -> None:
    """Plot the speed relative to plain EFT, and milliseconds per round over the floor, as a PNG."""
    figure = import_module("matplotlib.figure").Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    measured = [row for row in report.rows if row.tokens_per_second]
    drafted = [row for row in measured if row.mode.startswith("speculative EFT, K=")]
    for key in dict.fromkeys((row.family, row.batch, row.context, row.acceptance) for row in drafted):
        chosen = [row for row in drafted if (row.family, row.batch, row.context, row.acceptance) == key]
        lengths = [int(row.mode.rpartition("=")[2]) for row in chosen]
        speeds = [Spread.of(row.ratios[PLAIN]).median for row in chosen]
        label = f"{key[0]}, batch {key[1]}, context {key[2]}, {key[3]:.2f}"
        left.plot(lengths, speeds, "o-", label=label, linewidth=1)
    left.axhline(1, color="gray", linestyle="--", linewidth=1)
    left.set(title="Drafting", xlabel="tokens drafted", ylabel="times plain EFT")
    if drafted:
        left.legend(frameon=False, fontsize=5)
    floors = [row for row in measured if row.floor_ms and row.mode in {BASE, PLAIN, SMALL_ALONE}]
    names = [f"{row.family}\n{row.mode}, {row.batch} x {row.context}" for row in floors]
    right.barh(names, [Spread.of(row.ms_per_round).median for row in floors], label="measured")
    right.barh(names, [Spread.of(row.floor_ms).median for row in floors], label="bandwidth floor")
    right.tick_params(axis="y", labelsize=5)
    right.set(title="A round", xlabel="ms")
    right.legend(frameon=False)
    figure.savefig(path, format="png", dpi=150)


def main(
    *,
    minutes: Annotated[float, typer.Option(help="The time limit in minutes.")] = 8.0,
    parts: Annotated[str, typer.Option(help="What to do, in this order.")] = ",".join(PARTS),
    tiny: Annotated[bool, typer.Option("--tiny", help="Tiny shapes, to try the script itself.")] = False,
    device: Annotated[str, typer.Option(help="The device to run on.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="The JSON file to write.")] = None,
    png: Annotated[Path | None, typer.Option(help="The plot to write; needs matplotlib.")] = None,
) -> None:
    """Measure, print a table, and write the JSON and a plot."""
    name = ("cuda:0" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    torch_device = torch.device(name)
    report = Report(torch_device, output, time.monotonic() + 60 * minutes)
    run(SMALL if tiny else FULL, torch_device, report, parts.split(","))
    report.save()
    print(table(report))
    if png:
        plot(report, png)


if __name__ == "__main__":
    typer.run(main)
