"""`python -m benchmarks.rivals`: our engine side by side with what users compare it with."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.rivals import our_engine
from benchmarks.rivals.arena import compete, prepare, report_progress
from benchmarks.rivals.board import board
from benchmarks.rivals.family import smol
from benchmarks.rivals.lineup import BASELINE, RIVALS, chosen
from benchmarks.rivals.page import replace_between_markers
from benchmarks.rivals.plot import plot

PAGE = Path("docs/performance.md")
PICTURE = Path("docs/images/rivals.svg")
REQUESTS = (1, 8, 32)


def main(
    *,
    only: Annotated[
        list[str] | None, typer.Option(help="Rivals whose name contains this text; repeatable.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="No round starts later than this.")] = 12,
    rounds: Annotated[int, typer.Option(help="The largest number of rounds.")] = 5,
    tokens: Annotated[int, typer.Option(help="Length of the answers.")] = 32,
    prompts: Annotated[str, typer.Option(help='"chat" or "tool call".')] = "chat",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of every contestant; torch's default.")
    ] = None,
    conditions: Annotated[str, typer.Option(help="A sentence about the machine, for the page.")] = "",
    output: Annotated[Path | None, typer.Option(help="The JSON file to write.")] = None,
    write: Annotated[bool, typer.Option("--write", help=f"Write the table and plot of {PAGE}.")] = False,
) -> None:
    """Measure, print the table, and write it where asked."""
    try:
        rivals = chosen(only)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--only") from None
    if write and only:
        raise typer.BadParameter("the page shows all rivals: leave out --only", param_hint="--write")
    installed = [rival for rival in rivals if rival.is_installed()]
    for rival in rivals:
        if rival not in installed:
            report_progress(f"{rival.name} is not installed: {rival.install}")
    if not installed:
        raise typer.BadParameter("none of these rivals is installed", param_hint="--only")
    prepare(threads, cpu_time=False)
    twins = (our_engine.PLAIN, BASELINE)
    report = compete(
        lambda folder: smol(folder, prompts, tokens, REQUESTS),
        installed,
        rounds,
        BASELINE if BASELINE in installed else installed[0],
        twins=twins if set(twins) <= set(installed) else None,
        minutes=minutes,
    )
    if output:
        output.write_text(json.dumps([report], indent=2))
    text = board(report, rivals, f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}. {conditions}")
    print(text)
    if report["greedy_agreement"] is not None:
        report_progress(f"Greedy tokens equal to the {BASELINE.name}'s: {report['greedy_agreement']:.0%}")
    if write:
        plot(report, RIVALS, PICTURE)
        replace_between_markers(PAGE, text)


if __name__ == "__main__":
    typer.run(main)
