"""The command line: one module for each command of `langchain-eft`.

A module here imports torch only inside the function that needs it, so that `--help` and errors come fast.
"""

from __future__ import annotations

from importlib import metadata
from typing import Annotated, Any

import typer

from langchain_eft.cli import (
    bench,
    chat,
    demo,
    diagnose,
    export,
    plan,
    playground,
    presets,
    serve,
    teach,
    trace,
    verify,
)
from langchain_eft.cli.console import quiet_libraries, speak_of
from langchain_eft.cli.eval import evaluate
from langchain_eft.cli.options import Command, Group, flag

app = typer.Typer(
    cls=Group,
    help="Emulated fine-tuning: a large model's knowledge with small models' behaviors.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    *,
    version: Annotated[bool, flag("--version", help="Show the version and exit.")] = False,
) -> None:
    """Emulated fine-tuning: a large model's knowledge with small models' behaviors."""
    if version:
        typer.echo(f"langchain-eft {metadata.version('langchain-eft')}")
        raise typer.Exit
    quiet_libraries()
    group: Any = context.command  # one of click, which typer may bring itself
    if command := group.commands.get(context.invoked_subcommand):
        speak_of(command.params)


for run in (
    chat.chat,
    demo.demo,
    diagnose.diagnose,
    export.export,
    plan.plan,
    presets.presets,
    serve.serve,
    playground.playground,
    teach.teach,
    trace.trace,
    verify.verify,
    bench.bench,
):
    app.command(cls=Command)(run)
app.command(name="eval", cls=Command)(evaluate)
