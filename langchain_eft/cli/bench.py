"""`langchain-eft bench`: how fast a recipe decodes on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from langchain_eft.cli.console import note, notes, readable_errors
from langchain_eft.cli.options import (
    BaseTemplate,
    Behavior,
    ChatTemplate,
    Device,
    Dtype,
    Mix,
    Model,
    Reference,
    UpscaleStrength,
    UpscaleTopP,
    build_model,
    recipe_settings,
)


def bench(
    mix: Mix = None,
    model: Model = None,
    behavior: Behavior = None,
    reference: Reference = None,
    chat_template: ChatTemplate = None,
    base_template: BaseTemplate = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longest answer, in tokens.")] = 48,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of every way to decode.")] = 3,
    upscale_strength: UpscaleStrength = None,
    upscale_top_p: UpscaleTopP = None,
    device: Device = None,
    dtype: Dtype = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw the figures there; needs the 'plots' extra.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure how fast a recipe decodes: the base alone, plain, with drafts, and in batches."""
    from langchain_eft.diagnostics import bench as benchmark

    with readable_errors():
        settings = recipe_settings(
            model, mix, behavior, reference, chat_template=chat_template, base_template=base_template,
            upscale_strength=upscale_strength, upscale_top_p=upscale_top_p,
            device=device, dtype=dtype,
        )  # fmt: skip
        llm = build_model(temperature=0, **settings)
        with notes.status("Starting") as status:
            report = benchmark.run_benchmark(
                llm,
                max_tokens=max_tokens,
                repetitions=repetitions,
                progress=status.update if notes.is_terminal else note,
            )
        if plot is not None:
            benchmark.plot(report, plot)
    if as_json:
        typer.echo(report.to_json())
    else:
        Console(highlight=False).print(benchmark.tables(report))
