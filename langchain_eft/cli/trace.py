"""`langchain-eft trace`: one answer, and how the base and the behaviors shaped each of its tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from langchain_eft.cli.console import (
    InputError,
    load,
    note,
    readable_errors,
    require_folder,
)
from langchain_eft.cli.options import (
    EndpointOptions,
    JsonFlag,
    MaxTokens,
    RecipeOptions,
    Seed,
    SystemOption,
    Temperature,
    option_groups,
)


@option_groups
def trace(
    recipe: RecipeOptions,
    endpoint: EndpointOptions,
    prompt: Annotated[str, typer.Argument(help="The prompt to answer.")],
    *,
    system: SystemOption = None,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 128,
    seed: Seed = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a web page to this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer PROMPT and show what the base and each behavior did to every token."""
    with readable_errors():
        require_folder("--html", html)
        settings = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed, **vars(endpoint)}
        llm = recipe.build_model(trace=True, **settings)
        load(llm)
        from langchain_eft.trace.trace import EFTTrace

        message = llm.invoke([*([("system", system)] if system else []), ("human", prompt)])
        answer = EFTTrace.from_message(message)
        if html is not None:
            write(html, answer.to_html())
    if as_json:
        typer.echo(json.dumps(answer.to_dict(), ensure_ascii=False, indent=2))
    else:
        answer.print()


def write(file: Path, page: str) -> None:
    """Write a web page to a file and print the file's name.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--html {str(file)!r} cannot be written ({error}): name a file in a folder that exists."
        ) from error
    note(f"Wrote {file}.")
