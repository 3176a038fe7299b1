"""`python -m benchmarks.rivals`: our engine against the proxy loop and transformers' own generation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.arena import compete, prepare, table
from benchmarks.family import FAMILIES

BASELINE = "proxy loop"
CONTESTANTS = [
    "our engine, plain",
    "our engine, auto",
    BASELINE,
    "generate, base alone",
    "assisted, base alone",
]


def main(
    *,
    family: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(FAMILIES)}; repeatable.")] = None,
    rounds: Annotated[int, typer.Option(help="The number of rounds.")] = 5,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of every contestant; torch's default.")
    ] = None,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Count CPU seconds of one thread, for a busy machine.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="The JSON file to write.")] = None,
) -> None:
    """Measure, print tables and write the JSON."""
    prepare(threads, cpu_time=cpu_time)
    reports = []
    for name in family or FAMILIES:
        reports.append(compete(FAMILIES[name], dict.fromkeys(CONTESTANTS, sys.executable), rounds, BASELINE))
        print(table(reports[-1]), flush=True)
        print(flush=True)
        if output:
            output.write_text(json.dumps(reports, indent=2))


if __name__ == "__main__":
    typer.run(main)
