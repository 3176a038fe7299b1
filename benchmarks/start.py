"""`python -m benchmarks.start`: from the start of a process to the first token of its first answer.

Every run is a process of its own. It records five moments: LangChain and the package are imported, torch and
transformers are imported, the engine is open (weights are read and checked, and rounds recorded on a GPU),
the first token is drawn, the second token is drawn. The first process of each way only warms the machine's
caches, including that of torch.compile. The table shows it separately.

CPU seconds are those of all threads. On a machine with other work to do, compare these.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from typing import Annotated

import typer

from langchain_eft.diagnostics.bench import take_turns
from langchain_eft.evaluation.results import markdown

PHASES = ("import LangChain", "import torch and the rest", "open", "first token", "second token")
CLOCKS = ("s", "CPU s")

PROCESS = """
import json, os, sys, time
moments = [(float(os.environ["STARTED"]), 0.0)]
def record(_=None):
    moments.append((time.time(), time.process_time()))
from langchain_eft import EFTChatModel
llm = EFTChatModel(temperature=0, max_tokens=2, engine_options=json.loads(sys.argv[1]))
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


def start(options: dict[str, object], _turn: int) -> list[list[float]]:
    """Return the seconds of each phase of a new process, and its CPU seconds.

    Args:
        options: Options of the engine.
    """
    environment = {**os.environ, "STARTED": str(time.time())}
    command = [sys.executable, "-c", PROCESS, json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(done.stderr)
    moments = json.loads(done.stdout.splitlines()[-1])
    return [[after - before for before, after in pairwise(clock)] for clock in zip(*moments, strict=True)]


def main(
    rounds: Annotated[int, typer.Option(help="Measured processes of each way, after one to warm up.")] = 3,
    *,
    compiled: Annotated[bool, typer.Option("--compile", help="Also with `compile=True`.")] = False,
) -> None:
    """Start processes in turns, and print a table of medians."""
    ways: dict[str, dict[str, object]] = {"default": {}}
    if compiled:
        ways["compile"] = {"compile": True, "static_rounds": True}
    runs = take_turns(
        {name: partial(start, options) for name, options in ways.items()}, rounds + 1, warm_up=0
    )
    rows = []
    for name, processes in runs.items():
        for unit, (first, *warm) in zip(CLOCKS, zip(*processes, strict=True), strict=True):
            phases = [statistics.median(times) for times in zip(*warm, strict=True)]
            totals = [sum(times[:4]) for times in warm]
            values = (*phases, statistics.median(totals), sum(first[:4]))
            rows.append([f"{name}, {unit}", *(f"{seconds:.2f}" for seconds in values)])
    print(markdown(["way", *PHASES, "to the first token", "of the very first process"], rows))


if __name__ == "__main__":
    typer.run(main)
