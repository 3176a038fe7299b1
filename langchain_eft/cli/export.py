"""`langchain-eft export`: a recipe as a folder that vLLM serves, and the line that starts vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from langchain_eft.cli.console import note, progress, readable_errors
from langchain_eft.cli.options import SourceOptions, option_groups


@option_groups
def export(
    recipe: SourceOptions,
    *,
    folder: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="GPUs that share every layer of all models.")
    ] = 1,
    quantization: Annotated[
        str | None, typer.Option(help="vLLM's name of a format for the base's weights, such as fp8.")
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A behavior whose tuned model drafts tokens for all requests."),
    ] = None,
) -> None:
    """Write a recipe as a folder that vLLM serves, and print the line that starts vLLM.

    Files are hard links to the models' own where the disk allows it. The folder appears whole or not at all.
    """
    with readable_errors():
        llm = recipe.build_model()
        with progress() as report:
            from langchain_eft.vllm.export import ServeOptions, export_recipe

            exported = export_recipe(
                llm.recipe,
                llm.active_mixture,
                folder.expanduser(),
                ServeOptions(tensor_parallel, quantization),
                draft,
                report,
            )
    linked, copied = decimal(exported.written.linked), decimal(exported.written.copied)
    note(f"Wrote {folder}: {linked} are links to the models' own files, {copied} are copies.")
    typer.echo(exported.line)
