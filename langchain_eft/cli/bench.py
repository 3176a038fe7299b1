"""`langchain-eft bench`: how fast a recipe decodes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from langchain_eft.cli.console import progress, readable_errors, require_folder
from langchain_eft.cli.options import JsonFlag, RecipeOptions, option_groups


@option_groups
def bench(
    recipe: RecipeOptions,
    *,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longest answer, in tokens.")] = 48,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of every way to decode.")] = 3,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Draw the figures into this file; needs the 'plots' extra."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure how fast a recipe decodes: the base alone, EFT with and without drafts, and in batches."""
    from langchain_eft.diagnostics import bench as benchmark

    with readable_errors():
        require_folder("--plot", plot)
        llm = recipe.build_model(temperature=0)
        with progress() as report_progress:
            report = benchmark.run_benchmark(
                llm, max_tokens=max_tokens, repetitions=repetitions, progress=report_progress
            )
        if plot is not None:
            benchmark.plot(report, plot)
    if as_json:
        typer.echo(report.to_json())
    else:
        Console(highlight=False).print(benchmark.tables(report))
