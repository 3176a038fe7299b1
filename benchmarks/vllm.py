"""`python -m benchmarks.vllm`: what emulated fine-tuning costs inside vLLM, and our engine beside it.

All contestants run in vLLM's environment, which `make test-vllm` makes.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.rivals import our_engine, vllm
from benchmarks.rivals.arena import compete, prepare, table
from benchmarks.rivals.family import smol

BASELINE = vllm.BASE_ALONE
RIVALS = (vllm.ONE_BEHAVIOR, vllm.FOUR_BEHAVIORS, BASELINE, our_engine.PLAIN, our_engine.AUTO)


def main(
    *,
    python: Annotated[Path, typer.Option(help="vLLM's interpreter.")] = vllm.PYTHON,
    rounds: Annotated[int, typer.Option(help="The number of rounds.")] = 3,
    tokens: Annotated[int, typer.Option(help="Length of the answers.")] = 32,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of every contestant; torch's default.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The JSON file to write.")] = None,
) -> None:
    """Measure, print a table and the memory of each contestant, and write the JSON."""
    prepare(threads, cpu_time=False)
    rivals = {rival: replace(rival, python=python.absolute()) for rival in RIVALS}
    report = compete(
        lambda folder: smol(folder, "chat", tokens, (1, 8, 32)),
        list(rivals.values()),
        rounds,
        rivals[BASELINE],
        twins=(rivals[vllm.ONE_BEHAVIOR], rivals[our_engine.PLAIN]),
    )
    print(table(report))
    print("\n| contestant | memory of its processes |\n| --- | --- |")
    for name, nbytes in report["memory"].items():
        print(f"| {name} | {nbytes / 2**30:.1f} GiB |")
    if output:
        output.write_text(json.dumps([report], indent=2))


if __name__ == "__main__":
    typer.run(main)
