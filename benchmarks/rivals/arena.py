"""Run contestants in turns, each in a process of its own, and make tables of the results."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks.rivals.family import Family, Prompts
from benchmarks.rivals.result import CPU_TIME, Result
from benchmarks.rivals.rival import Rival
from langchain_eft.diagnostics.bench import Spread, processor, take_turns
from langchain_eft.engine.cores import usable_cores

ROOT = Path(__file__).parents[2]
ALONE_PROMPTS = 2
"""The number of prompts decoded one after the other in a round of single requests."""


class Worker:
    """The process of one rival, or of several that share it.

    Args:
        rival: What it decodes with.
        family: What it loads.

    Attributes:
        about: Threads, and versions of packages.
    """

    def __init__(self, rival: Rival, family: Family) -> None:
        command = [rival.python, "-m", "benchmarks.rivals.worker", rival.process, str(family.folder)]
        # Nothing is downloaded, so no process should wait for a hub that may be out of reach.
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._name = rival.process
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=offline
        )
        self.about = self._read()

    def decode(
        self, prompts: Sequence[Sequence[int]], tokens: int, temperature: float, seed: int, **options: Any
    ) -> Result:
        """Send a batch to the contestant, and wait for the result."""
        request = {"prompts": prompts, "tokens": tokens, "temperature": temperature, "seed": seed, **options}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Result(**self._read())

    def memory(self) -> int:
        """The memory of the contestant and of processes that it has started, in bytes."""
        own = psutil.Process(self._process.pid)
        return sum(process.memory_info().rss for process in [own, *own.children(recursive=True)])

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The contestant {self._name!r} has died. Its error message is above.")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Score:
    """The results of a contestant for one number of concurrent requests, one per round."""

    name: str
    requests: int
    results: tuple[Result, ...]
    baselines: tuple[Result, ...]

    @property
    def speed(self) -> Spread:
        """Tokens per second."""
        return Spread.of([result.tokens_per_second for result in self.results])

    @property
    def ratio(self) -> Spread:
        """The speed relative to the baseline in the same round."""
        return Spread.of_ratios(
            [result.tokens_per_second for result in self.results],
            [baseline.tokens_per_second for baseline in self.baselines],
        )

    @property
    def first_token(self) -> float:
        """The median of the seconds to the first token."""
        return Spread.of([result.first_token for result in self.results]).median

    @property
    def tokens_per_pass(self) -> float:
        """The tokens that an answer gains with every pass of the large model."""
        return sum(result.tokens for result in self.results) / sum(result.passes for result in self.results)

    @property
    def acceptance_rate(self) -> float | None:
        """The median over the rounds; None if the contestant does not draft or does not report it."""
        rates = [result.acceptance_rate for result in self.results if result.acceptance_rate is not None]
        return Spread.of(rates).median if rates else None

    def summary(self) -> dict[str, Any]:
        """Return everything except the answers, for JSON."""
        rounds = [asdict(result) for result in self.results]
        return {
            "contestant": self.name,
            "requests": self.requests,
            "tokens_per_second": asdict(self.speed),
            "ratio": asdict(self.ratio),
            "first_token": self.first_token,
            "tokens_per_pass": self.tokens_per_pass,
            "acceptance_rate": self.acceptance_rate,
            "rounds": [{k: v for k, v in each.items() if k != "answers"} for each in rounds],
        }


def merge_results(results: Sequence[Result]) -> Result:
    """Merge the results of batches that were decoded one after the other."""
    rates = [result.acceptance_rate for result in results if result.acceptance_rate is not None]
    return Result(
        tokens=sum(result.tokens for result in results),
        seconds=sum(result.seconds for result in results),
        first_token=Spread.of([result.first_token for result in results]).median,
        passes=sum(result.passes for result in results),
        acceptance_rate=sum(rates) / len(rates) if rates else None,
        answers=[answer for result in results for answer in result.answers],
    )


Workers = Mapping[Rival, Worker]


def play(
    workers: Workers, family: Family, rounds: int, baseline: Rival, deadline: float = math.inf
) -> list[Score]:
    """Let rivals take turns. All get the same prompts, and no prompt occurs twice.

    Args:
        workers: The process of each rival.
        family: What they decode.
        rounds: The number of rounds, after one to warm up.
        baseline: The rival whose speed is 1.
        deadline: No round starts after this time of `time.monotonic`, except for the first measured one.
    """
    prompts = Prompts(family)

    @cache
    def batches(turn: int) -> list[tuple[int, list[list[list[int]]]]]:  # noqa: ARG001
        alone = [prompts.take(1) for _ in range(ALONE_PROMPTS)]
        return [(count, alone if count == 1 else [prompts.take(count)]) for count in family.requests]

    def contestant(rival: Rival) -> Callable[[int], dict[int, Result]]:
        def decode(batch: list[list[int]], turn: int) -> Result:
            seed = 1000 * turn + 1000
            return workers[rival].decode(batch, family.tokens, family.temperature, seed, **rival.options)

        def results(turn: int) -> dict[int, Result]:
            measured = {}
            for count, some in batches(turn):
                measured[count] = merge_results([decode(batch, turn) for batch in some])
                report_progress(
                    f"{family.name}, {count} at a time, round {turn + 1} of {rounds}: {rival.name} "
                    f"{measured[count].tokens_per_second:.1f} tokens/s"
                )
            return measured

        return results

    measured = take_turns({rival: contestant(rival) for rival in workers}, rounds, deadline=deadline)
    return [
        Score(
            rival.name,
            count,
            tuple(each[count] for each in measured[rival]),
            tuple(each[count] for each in measured[baseline]),
        )
        for count in family.requests
        for rival in workers
    ]


def agreement(workers: Workers, one: Rival, other: Rival, family: Family) -> float:
    """Return the share of greedy tokens before the first difference between two rivals."""
    prompts = Prompts(family).take(ALONE_PROMPTS)
    equal = total = 0
    for prompt in prompts:
        answers = [
            workers[rival].decode([prompt], family.tokens, 0.0, 0, **rival.options).answers[0]
            for rival in (one, other)
        ]
        total += family.tokens
        equal += next(
            (i for i, pair in enumerate(zip(*answers, strict=True)) if len(set(pair)) > 1), family.tokens
        )
    return equal / total


def compete(
    make: Callable[[Path], Family],
    rivals: Sequence[Rival],
    rounds: int,
    baseline: Rival,
    twins: tuple[Rival, Rival] | None = None,
    minutes: float = math.inf,
) -> dict[str, Any]:
    """Make a family, start the rivals, and run the rounds.

    Args:
        make: Makes the family in an empty folder.
        rivals: Who takes part.
        rounds: The number of rounds.
        baseline: The rival whose speed is 1.
        twins: Two rivals that decode the same formula; their greedy answers are compared.
        minutes: No round starts later than this after the start.
    """
    deadline = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        report_progress("Making the family")
        family = make(Path(folder))
        processes: dict[str, Worker] = {}
        for rival in rivals:
            if rival.process not in processes:
                report_progress(f"Starting {rival.process}")
                processes[rival.process] = stack.enter_context(Worker(rival, family))
        workers = {rival: processes[rival.process] for rival in rivals}
        threads = {worker.about["threads"] for worker in workers.values()}
        if len(threads) > 1:
            raise RuntimeError(f"All contestants must use the same number of threads, got {sorted(threads)}.")
        greedy_agreement = None
        if twins:
            report_progress("Comparing greedy answers")
            greedy_agreement = agreement(workers, *twins, family)
        scores = play(workers, family, rounds, baseline, deadline)
        return {
            "family": family.name,
            "tokens": family.tokens,
            "temperature": family.temperature,
            "baseline": baseline.name,
            "twins": [rival.name for rival in twins or ()],
            "greedy_agreement": greedy_agreement,
            "machine": {
                "processor": processor(),
                "cores": usable_cores(),
                "threads": threads.pop(),
            },
            "versions": {rival.name: worker.about for rival, worker in workers.items()},
            "rounds": len(scores[0].results),
            "cpu_time": CPU_TIME in os.environ,
            "scores": [score.summary() for score in scores],
            "memory": {rival.name: worker.memory() for rival, worker in workers.items()},
        }


def table(report: dict[str, Any]) -> str:
    """Format a report as markdown."""
    machine = report["machine"]
    sampling = "greedy" if report["temperature"] == 0 else f"temperature {report['temperature']:g}"
    baseline, unit = report["baseline"], "CPU s" if report["cpu_time"] else "s"
    method = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads; median of "
        f"{report['rounds']} rounds (lowest-highest); greedy tokens before the first difference between "
        f"{' and '.join(report['twins'])}: {report['greedy_agreement']:.0%}."
    )
    lines = [
        f"### {report['family']}: {report['tokens']} tokens, {sampling}",
        "",
        method,
        "",
        f"| requests | | tokens/{unit} | times {baseline} | first token | tokens/pass | accepted |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for score in report["scores"]:
        ratio, accepted = score["ratio"], score["acceptance_rate"]
        lines.append(
            f"| {score['requests']} | {score['contestant']} | {score['tokens_per_second']['median']:.1f} "
            f"| {ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}) "
            f"| {score['first_token'] * 1000:.0f} ms | {score['tokens_per_pass']:.2f} "
            f"| {'-' if accepted is None else f'{accepted:.0%}'} |"
        )
    return "\n".join(lines)


def prepare(threads: int | None, *, cpu_time: bool) -> None:
    """Set the environment that every contestant inherits."""
    if cpu_time:
        # Threads that wait for each other use CPU time; a single thread does not.
        os.environ[CPU_TIME], threads = "1", 1
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def report_progress(text: str) -> None:
    """Print a progress message."""
    print(text, file=sys.stderr, flush=True)
