"""`langchain-eft teach`: a behavior from examples or from a description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from langchain_eft.cli.console import progress, readable_errors
from langchain_eft.cli.options import JsonFlag, flag

if TYPE_CHECKING:
    from langchain_eft.teaching import TaughtBehavior
    from langchain_eft.teaching.verdict import TaughtVerdict


def sweep_table(verdict: TaughtVerdict) -> Table:
    """Behavior against knowledge at each weight."""
    from langchain_eft.teaching.verdict import percent

    table = Table(title="Behavior kept against knowledge kept", title_justify="left")
    for heading in (
        "weight",
        "shows the behavior",
        "of the small model's",
        "capitals right",
        "of the base's",
    ):
        table.add_column(heading, justify="right")
    for point in verdict.sweep:
        marker = " <" if point.weight == verdict.recommended_weight else ""
        shares = (point.behavior, point.behavior_kept, point.knowledge, point.knowledge_kept)
        table.add_row(f"{point.weight:g}{marker}", *map(percent, shares))
    return table


def _is_refuted(behavior: TaughtBehavior) -> bool:
    """Whether there is a verdict, and it recommends no weight."""
    return behavior.verdict is not None and behavior.verdict.recommended_weight is None


def show(behavior: TaughtBehavior) -> None:
    """Print what was made, and the verdict."""
    console, card = Console(highlight=False, markup=False), behavior.card
    before, after = card.measured["loss_before"], card.measured["loss_after"]
    console.print(f"Held-out loss: {before:.3f} before, {after:.3f} after.")
    if verdict := behavior.verdict:
        console.print(verdict.sentence, soft_wrap=True)
        console.print(sweep_table(verdict))
        if verdict.weight_range is not None:
            low, high = verdict.weight_range
            console.print(
                f"Recommended weight: {verdict.recommended_weight:g} ({low:g} to {high:g}). "
                f"Expected acceptance of drafts: {verdict.acceptance:.0%}.",
                soft_wrap=True,
            )
        console.print(f"\n{verdict.samples[0].prompt}")
        for sample in verdict.samples:
            console.print(f"  {sample.weight:g}: {' '.join(sample.answer.split())}", soft_wrap=True)
    console.print(f"\nWrote {behavior.folder}.", soft_wrap=True)
    if _is_refuted(behavior):
        return
    weight = 1.0 if card.recommended_weight is None else card.recommended_weight
    model = "" if card.base == "smol" else f" --model {card.base}"
    console.print("Try it:")
    console.print(
        f"  langchain-eft chat{model} --behavior {card.name}={behavior.folder} --mix {card.name}={weight:g}",
        soft_wrap=True,
    )


def teach(
    name: Annotated[str, typer.Argument(help="The behavior's name.")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A .jsonl file of conversations or of pairs of answers, or a data set: hub id or folder.",
            show_default=False,
        ),
    ] = None,
    *,
    describe: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Describe the behavior instead: 'You are a patient teacher.'"),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="PROVIDER:MODEL",
            help="The chat model that answers under the description. Left out, the model itself does.",
        ),
    ] = None,
    questions: Annotated[int, typer.Option(min=8, help="Questions that the teacher answers.")] = 240,
    model: Annotated[str, typer.Option(help="The large base: preset, hub id or folder.")] = "smol",
    reference: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="The small model that learns. A preset has one."),
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A Jinja chat template instead of the models' own.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The new folder. Left out, it is named after the behavior."),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="A regular expression that answers with the behavior match. Left out, the verdict goes "
            "by the implicit reward.",
        ),
    ] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", help="License of the adapter, such as apache-2.0.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of the LoRA.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the training.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a step.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same behavior.")] = 0,
    start: Annotated[
        str | None,
        typer.Option(
            "--start-from",
            metavar="SOURCE",
            help="Begin with this adapter of the same reference: folder or hub id.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(
            help="Arithmetic of the training. Left out, bfloat16 on a GPU and float32 on a CPU.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, flag("--resume", help="Go on with a training that was stopped.")] = False,
    no_verdict: Annotated[
        bool, flag("--no-verdict", help="Do not measure whether the behavior transfers.")
    ] = False,
    capitals: Annotated[
        int, typer.Option(min=1, help="Capitals that the verdict asks for, to measure knowledge.")
    ] = 48,
    as_json: JsonFlag = False,
) -> None:
    """Make a behavior from examples or a description, and find out whether it transfers and at which weight.

    Only the small reference is trained. Ctrl-C ends the training with a checkpoint; --resume goes on. The
    exit code is 1 if the behavior was not learned, or no weight can be recommended.
    """
    with readable_errors():
        from langchain_eft.teaching import Settings
        from langchain_eft.teaching import teach as teach_behavior

        settings = Settings(
            rank=rank,
            learning_rate=learning_rate,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            start=start,
            precision=precision,
        )
        with progress() as report:
            behavior = teach_behavior(
                name,
                source,
                describe=describe,
                teacher=teacher,
                questions=questions,
                model=model,
                reference=reference,
                chat_template=chat_template,
                folder=output,
                settings=settings,
                style=style,
                license=license_name,
                resume=resume,
                verdict=not no_verdict,
                capitals=capitals,
                progress=report,
            )
    if as_json:
        typer.echo(json.dumps({"folder": str(behavior.folder), **behavior.card.model_dump()}, indent=2))
    else:
        show(behavior)
    if _is_refuted(behavior):
        raise typer.Exit(1)
