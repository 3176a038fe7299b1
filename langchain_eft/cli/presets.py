"""`langchain-eft presets`: the recipes that have a name."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from langchain_eft.cli.options import JsonFlag
from langchain_eft.presets import Preset, load_preset, preset_names


def presets(*, as_json: JsonFlag = False) -> None:
    """List the presets: the models that each one loads, and their license. Nothing is fetched."""
    listed = [preset for name in preset_names() if (preset := load_preset(name))]
    if as_json:
        typer.echo(json.dumps([_as_json(preset) for preset in listed], indent=2))
    else:
        Console(highlight=False).print(presets_table(listed))


def presets_table(listed: list[Preset]) -> Table:
    """Presets with their description and license, one row for each."""
    table = Table(caption="Use one with --model NAME, or EFTChatModel(model=NAME).")
    for heading in ("preset", "what it is", "license"):
        table.add_column(heading, overflow="fold")
    for preset in listed:
        gated = " (gated: accept it on the hub first)" if preset.gated else ""
        table.add_row(preset.name, preset.description, preset.license + gated)
    return table


def _as_json(preset: Preset) -> dict[str, Any]:
    return {
        "name": preset.name,
        "description": preset.description,
        "license": preset.license,
        "gated": preset.gated,
        "sources": [str(source) for source in preset.recipe.sources],
        "behaviors": list(preset.recipe.behaviors),
        "mixture": dict(preset.mixture.weights),
        "context_window": preset.context_window,
        "vocabulary_rows": preset.vocabulary_rows.model_dump(),
    }
