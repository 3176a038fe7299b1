"""`langchain-eft trace`: one answer, and what made each of its tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from langchain_eft.cli.console import InputError, load, note, readable_errors
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


def trace(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    mix: Mix = None,
    model: Model = None,
    behavior: Behavior = None,
    reference: Reference = None,
    chat_template: ChatTemplate = None,
    base_template: BaseTemplate = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float, typer.Option(help="Randomness; 0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    upscale_strength: UpscaleStrength = None,
    upscale_top_p: UpscaleTopP = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page that shows what made each token.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of colours.")] = False,
) -> None:
    """Answer PROMPT and show what the base and each behaviour did to every token."""
    with readable_errors():
        settings = recipe_settings(
            model, mix, behavior, reference, chat_template=chat_template, base_template=base_template,
            temperature=temperature, max_tokens=max_tokens, seed=seed,
            upscale_strength=upscale_strength, upscale_top_p=upscale_top_p, device=device, dtype=dtype,
        )  # fmt: skip
        llm = build_model(trace=True, **settings)
        load(llm)
        from langchain_eft.trace.trace import EFTTrace

        message = llm.invoke([*([("system", system)] if system else []), ("human", prompt)])
        found = EFTTrace.from_message(message)
        if html is not None:
            write(html, found.to_html())
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
    else:
        found.print()


def write(file: Path, page: str) -> None:
    """Write a page and say where it is.

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
