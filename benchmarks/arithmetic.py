"""`python -m benchmarks.arithmetic`: our engine against language-model-arithmetic.

language-model-arithmetic needs transformers 4, so it runs in an environment of its own. It is not on PyPI, so
its source must be reachable. If it is not, the benchmark prints the reason and measures nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.rivals import arithmetic, our_engine
from benchmarks.rivals.arena import compete, prepare, report_progress, table
from benchmarks.rivals.family import tiny
from benchmarks.rivals.lineup import BASELINE
from langchain_eft.engine.cache_folder import cache_folder

SOURCE = "https://github.com/eth-sri/language-model-arithmetic/archive/6779b40.zip"
# A torch that is not pinned may bring gigabytes of CUDA libraries along.
TORCH = "torch==2.13.0"
PINS = [TORCH, "transformers==4.44.2", "trl==0.8.6", "peft==0.12.0", "numpy<2", "pyarrow<18", "dill"]


def install(folder: Path, source: str) -> str:
    """Make the environment if it does not exist.

    Returns:
        The path of its interpreter.

    Raises:
        CalledProcessError: A package cannot be installed or imported; its `stderr` has pip's message.
    """
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        report_progress(f"Making an environment in {folder}")
        _run(sys.executable, "-m", "venv", str(folder))
    if subprocess.run([python, "-c", "import model_arithmetic"], capture_output=True, check=False).returncode:  # noqa: S603
        report_progress(f"Installing {source}")
        pip = [python, "-m", "pip", "install", "--quiet"]
        _run(*pip, TORCH)
        _run(*pip, *PINS, source)
        _run(python, "-c", "import model_arithmetic")
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)  # noqa: S603


def main(
    *,
    venv: Annotated[
        Path | None, typer.Option(help="The folder of its environment; in the cache by default.")
    ] = None,
    source: Annotated[str, typer.Option(help="The source for pip: an address or a folder.")] = SOURCE,
    rounds: Annotated[int, typer.Option(help="The number of rounds.")] = 5,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of every contestant; torch's default.")
    ] = None,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Count CPU seconds of one thread, for a busy machine.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="The JSON file to write.")] = None,
) -> None:
    """Measure, print a table and write the JSON, or print why this machine cannot run it."""
    prepare(threads, cpu_time=cpu_time)
    try:
        python = install((venv or cache_folder() / "arithmetic").absolute(), source)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line.lower()] or [error.stderr]
        print(f"Skipped: language-model-arithmetic cannot be installed here: {lines[-1]}")
        return
    theirs = [replace(rival, python=Path(python)) for rival in (arithmetic.PLAIN, arithmetic.SPECULATIVE)]
    report = compete(
        tiny,
        [our_engine.PLAIN, our_engine.AUTO, BASELINE, *theirs],
        rounds,
        BASELINE,
        twins=(our_engine.PLAIN, BASELINE),
    )
    print(table(report))
    if output:
        output.write_text(json.dumps([report], indent=2))


if __name__ == "__main__":
    typer.run(main)
