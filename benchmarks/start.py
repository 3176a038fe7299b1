"""`python -m benchmarks.start`: from the start of a process to the first token of its first answer.

Every run is a process of its own. It records five moments: LangChain and the package are imported, torch and
transformers are imported, the engine is open (weights are read and checked, and rounds recorded on a GPU),
the first token is drawn, the second token is drawn. The first process only warms the machine's caches and has
a column of its own.

CPU seconds are those of all threads. On a machine with other work to do, compare these.
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

from langchain_eft.evaluation.results import markdown

PHASES = ("import LangChain", "import torch and the rest", "open", "first token", "second token")
CLOCKS = ("s", "CPU s")

PROCESS = """
import json, os, time
moments = [(float(os.environ["STARTED"]), 0.0)]
def record(_=None):
    moments.append((time.time(), time.process_time()))
from langchain_eft import EFTChatModel
llm = EFTChatModel(temperature=0, max_tokens=2)
record()
loading = []
def progress(message):  # the first step of loading comes when everything is imported
    if not loading:
        loading.append(message)
        record()
llm.open(progress)
record()
for chunk in llm.stream("What is the capital of Japan?"):
    if chunk.content:
        record()
print(json.dumps(moments[:6]))
"""


def start() -> list[list[float]]:
    """Return the seconds of each phase of a new process, and its CPU seconds."""
    environment = {**os.environ, "STARTED": str(time.time())}
    command = [sys.executable, "-c", PROCESS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(done.stderr)
    moments = json.loads(done.stdout.splitlines()[-1])
    return [[after - before for before, after in pairwise(clock)] for clock in zip(*moments, strict=True)]


def main(
    rounds: Annotated[int, typer.Option(help="Measured processes, after one to warm up.")] = 3,
) -> None:
    """Start processes one after the other, and print a table of medians."""
    processes = [start() for _ in range(rounds + 1)]
    rows = []
    for unit, (first, *warm) in zip(CLOCKS, zip(*processes, strict=True), strict=True):
        phases = [statistics.median(times) for times in zip(*warm, strict=True)]
        totals = [sum(times[:4]) for times in warm]
        values = (*phases, statistics.median(totals), sum(first[:4]))
        rows.append([unit, *(f"{seconds:.2f}" for seconds in values)])
    print(markdown(["unit", *PHASES, "to the first token", "of the very first process"], rows))


if __name__ == "__main__":
    typer.run(main)
