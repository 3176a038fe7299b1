"""A process that holds one contestant: `python -m benchmarks.worker NAME FOLDER`.

It reads requests and writes results, one line of JSON each, until its input ends. Separate processes keep the
CPU threads of the contestants apart. A process sleeps while another one computes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.result import Contestant


def engine(folder: Path, speculation: str) -> Contestant:
    from benchmarks.contestants import OurEngine
    from benchmarks.family import Family

    return OurEngine(Family.load(folder), speculation)


def rival(folder: Path, kind: str) -> Contestant:
    from benchmarks import contestants
    from benchmarks.family import Family

    return getattr(contestants, kind)(Family.load(folder))


def arithmetic(folder: Path, factor: int) -> Contestant:
    from benchmarks.arithmetic_contestant import Arithmetic

    return Arithmetic(folder, factor)


def vllm(folder: Path, behaviors: int) -> Contestant:
    from benchmarks.family import Family
    from benchmarks.vllm_contestant import VLLM

    return VLLM(Family.load(folder), behaviors)


CONTESTANTS: dict[str, Callable[[Path], Contestant]] = {
    "our engine, plain": lambda folder: engine(folder, "off"),
    "our engine, auto": lambda folder: engine(folder, "auto"),
    "proxy loop": lambda folder: rival(folder, "Proxy"),
    "generate, base alone": lambda folder: rival(folder, "Generate"),
    "assisted, base alone": lambda folder: rival(folder, "Assisted"),
    "arithmetic, plain": lambda folder: arithmetic(folder, 1),
    "arithmetic, speculative": lambda folder: arithmetic(folder, 4),
    "vLLM, base alone": lambda folder: vllm(folder, 0),
    "vLLM, 1 behavior": lambda folder: vllm(folder, 1),
    "vLLM, 4 behaviors": lambda folder: vllm(folder, 4),
}


def main(name: str, folder: Path) -> None:
    # Redirect what libraries print to stderr, so that only answers are written to the old stdout.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    contestant = CONTESTANTS[name](folder)
    import torch
    import transformers

    about = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(about), file=answers)
    for line in sys.stdin:
        print(json.dumps(asdict(contestant.decode(**json.loads(line)))), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
