"""`python -m benchmarks.start`: from the start of a process to the first token of its first answer.

Every run is a process of its own. It records four times: the package is imported, the engine is open (weights
are read and checked, and rounds recorded on a GPU), the first token is drawn, the second token is drawn. The
first process of each way only warms the machine's caches, including that of torch.compile. The table shows it
separately.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from typing import Annotated

import typer

PHASES = ("import", "open", "first token", "second token")

PROCESS = """
import json, os, sys, time
times = [float(os.environ["STARTED"])]
from langchain_eft import EFTChatModel
llm = EFTChatModel(temperature=0, max_tokens=2, engine_options=json.loads(sys.argv[1]))
import langchain_eft.engine.engine
times.append(time.time())
llm.open()
times.append(time.time())
for chunk in llm.stream("What is the capital of Japan?"):
    if chunk.content:
        times.append(time.time())
print(json.dumps(times[:5]))
"""


def start(options: dict[str, object]) -> list[float]:
    """Return the seconds of each phase of a new process.

    Args:
        options: Options of the engine.
    """
    environment = {**os.environ, "STARTED": str(time.time())}
    command = [sys.executable, "-c", PROCESS, json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(done.stderr)
    times = json.loads(done.stdout.splitlines()[-1])
    return [after - before for before, after in pairwise(times)]


def main(
    rounds: Annotated[int, typer.Option(help="Measured processes of each way, after one to warm up.")] = 3,
    *,
    compiled: Annotated[bool, typer.Option("--compile", help="Also with `compile=True`.")] = False,
) -> None:
    """Start processes in turns, and print a table of medians."""
    ways: dict[str, dict[str, object]] = {"default": {}}
    if compiled:
        ways["compile"] = {"compile": True, "static_rounds": True}
    runs: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, options in ways.items():
            runs[name].append(start(options))
    print(f"| way | {' | '.join(PHASES)} | to the first token | of the very first process |")
    print(f"| --- |{' ---: |' * (len(PHASES) + 2)}")
    for name, (first, *warm) in runs.items():
        phases = [statistics.median(times) for times in zip(*warm, strict=True)]
        totals = [sum(times[:3]) for times in warm]
        cells = [f"{seconds:.2f} s" for seconds in (*phases, statistics.median(totals), sum(first[:3]))]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
