"""The report of a benchmark as tables for a terminal, and as a plot."""

from __future__ import annotations

from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from langchain_eft.diagnostics.bench.measurement import Measurement
from langchain_eft.diagnostics.bench.report import ALL_PROMPTS, BenchmarkReport
from langchain_eft.diagnostics.bench.workload import AUTO, BASE_ALONE, PLAIN
from langchain_eft.errors import MissingPlotsError


def tables(report: BenchmarkReport) -> Group:
    """The report as two tables: one request at a time, and many requests at once."""
    machine = report.machine
    speed = Table(
        title=f"{report.model}: one request at a time",
        caption=f"{machine.processor}, {machine.cores} cores, {machine.threads} threads; {machine.device}; "
        f"memory {machine.bytes_per_second / 1e9:.1f} GB/s; median of {report.repetitions} runs "
        "(lowest-highest)",
    )
    together = Table(title=f"{report.model}: many requests at once, prompts of all kinds")
    speed.add_column("prompts")
    together.add_column("requests", justify="right")
    for table in (speed, together):
        table.add_column("decoding")
        for title in ("tokens/s", "times plain", "first token", "accepted", "tokens/pass"):
            table.add_column(title, justify="right")
    speed.add_column("of memory speed", justify="right")
    for (prompts, batch_size), group in groupby(
        report.measurements, lambda measurement: (measurement.prompts, measurement.batch_size)
    ):
        mixed = prompts == ALL_PROMPTS
        table, first_cell = (together, str(batch_size)) if mixed else (speed, prompts)
        table.add_section()
        for measurement in group:
            share = [] if mixed else [_percent(report.bandwidth_share(measurement))]
            table.add_row(first_cell, *_cells(measurement), *share)
            first_cell = ""
    return Group(speed, together)


def _cells(measurement: Measurement) -> list[str]:
    ratio, first = measurement.ratio, measurement.first_token
    return [
        measurement.mode,
        f"{measurement.tokens_per_second.median:.1f}",
        f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})" if ratio else "1",
        f"{first.median * 1000:.0f} ms",
        _percent(measurement.acceptance_rate),
        f"{measurement.tokens_per_pass:.2f}",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def plot(report: BenchmarkReport, path: Path) -> None:
    """Plot the report as a PNG.

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
    """Plot speed by draft length, one line for each prompt set. The last point is the automatic length."""
    drafted = [
        measurement
        for measurement in report.measurements
        if measurement.prompts != ALL_PROMPTS and measurement.ratio and measurement.mode != BASE_ALONE.name
    ]
    names = list(dict.fromkeys(measurement.mode for measurement in drafted))
    for prompts in dict.fromkeys(measurement.prompts for measurement in drafted):
        ratios = {each.mode: each.ratio for each in drafted if each.prompts == prompts and each.ratio}
        positions = [names.index(mode) for mode in ratios]
        (line,) = axes.plot(positions, [ratio.median for ratio in ratios.values()], "o-", label=prompts)
        axes.fill_between(
            positions,
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
    """Plot speed by number of concurrent requests."""
    mixed = [each for each in report.measurements if each.prompts == ALL_PROMPTS]
    sizes = sorted({each.batch_size for each in mixed})
    for shift, mode in ((-0.2, PLAIN.name), (0.2, AUTO.name)):
        speeds = [each.tokens_per_second for each in mixed if each.mode == mode]
        medians = [speed.median for speed in speeds]
        errors = [[speed.median - speed.low for speed in speeds], [s.high - s.median for s in speeds]]
        axes.bar([i + shift for i in range(len(sizes))], medians, 0.4, yerr=errors, label=mode, capsize=3)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set(title="All prompts", xlabel="requests at once", ylabel="tokens/s, all requests")
    axes.legend(frameon=False)
