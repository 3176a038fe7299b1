"""`python -m benchmarks.arithmetic`: our engine against language-model-arithmetic.

That needs transformers 4, so it gets an environment of its own, and is not on PyPI, so its source must be
reachable: where it is not, the reason is printed and nothing is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.arena import compete, prepare, table, tell
from langchain_eft.engine.cache_folder import cache_folder

SOURCE = "https://github.com/eth-sri/language-model-arithmetic/archive/6779b40.zip"
# A torch that is not pinned may bring gigabytes of CUDA libraries along.
TORCH = "torch==2.13.0"
PINS = [TORCH, "transformers==4.44.2", "trl==0.8.6", "peft==0.12.0", "numpy<2", "pyarrow<18", "dill"]

BASELINE = "proxy loop"
OURS = ["our engine, plain", "our engine, auto", BASELINE]
THEIRS = ["arithmetic, plain", "arithmetic, speculative"]


def install(folder: Path, source: str) -> str:
    """Make the environment, unless it is there.

    Returns:
        Its interpreter.

    Raises:
        CalledProcessError: Something cannot be installed or imported; what pip said is its `stderr`.
    """
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        tell(f"Making an environment in {folder}")
        _run(sys.executable, "-m", "venv", str(folder))
    if subprocess.run([python, "-c", "import model_arithmetic"], capture_output=True, check=False).returncode:  # noqa: S603
        tell(f"Installing {source}")
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
        Path | None, typer.Option(help="Where its environment is, or is made; in the cache if left out.")
    ] = None,
    source: Annotated[str, typer.Option(help="What pip installs it from: an address or a folder.")] = SOURCE,
    rounds: Annotated[int, typer.Option(help="Turns of every contestant.")] = 5,
    threads: Annotated[int | None, typer.Option(help="CPU threads of everyone; torch's choice.")] = None,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Count CPU seconds of one thread, where others compute too.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Where to put the JSON.")] = None,
) -> None:
    """Measure, print a table, and keep the JSON; or say why it cannot be done here."""
    prepare(threads, cpu_time=cpu_time)
    try:
        python = install((venv or cache_folder() / "arithmetic").absolute(), source)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line.lower()] or [error.stderr]
        print(f"Skipped: language-model-arithmetic cannot be installed here: {lines[-1]}")
        return
    interpreters = {**dict.fromkeys(OURS, sys.executable), **dict.fromkeys(THEIRS, python)}
    report = compete("tiny", interpreters, rounds, BASELINE)
    print(table(report))
    if output:
        output.write_text(json.dumps([report], indent=2))


if __name__ == "__main__":
    typer.run(main)
