"""A benchmark's report as tables for a terminal, and as a picture."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from langchain_eft.diagnostics.bench.measurement import Row
from langchain_eft.diagnostics.bench.report import EVERYTHING, BenchmarkReport
from langchain_eft.diagnostics.bench.workload import AUTO, BASE, PLAIN
from langchain_eft.errors import MissingPlotsError


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
