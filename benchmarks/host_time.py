"""`python -m benchmarks.host_time`: what a recorded round costs the host, without a GPU and without models.

A GPU waits whenever the host needs longer to prepare a round than the GPU needs to run one. Here the two
halves of a round are replaced by a few lines that fill in results at random, and the host's work
around them is timed. The clock of the device is simulated, so that `auto` chooses draft lengths as it would
there.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import torch
import typer

from benchmarks.rivals.family import VOCABULARY, tiny
from langchain_eft.diagnostics.bench import take_turns
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.events import Event, Failed, Finished
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams, Speculation
from langchain_eft.engine.rounds import runner
from langchain_eft.engine.rounds.round import Round
from langchain_eft.evaluation.results import markdown

DRAFT_SECONDS, VERIFY_SECONDS = 0.001, 0.005
"""Simulated time of a draft pass and of a verify pass."""

_WARM_UP = 20
"""Rounds of each run that are not counted."""


class SimulatedDevice:
    """Takes the place of the device in the rounds of a GPU.

    Attributes:
        host_seconds: CPU seconds of the engine's thread for each round, outside the device.

    Args:
        acceptance: How often a draft token is accepted.
    """

    def __init__(self, acceptance: float) -> None:
        self.host_seconds: list[float] = []
        self._acceptance = acceptance
        self._random = random.Random(0)
        self._clock = 0.0
        self._left: float | None = None
        self._seconds = 0.0

    def installed(self) -> ExitStack:
        """Run rounds here instead, until the context ends."""
        stack = ExitStack()
        stack.enter_context(patch.object(Round, "draft", self._timed(self._draft)))
        stack.enter_context(patch.object(Round, "verify", self._timed(self._verify)))
        stack.enter_context(patch.object(runner, "now", lambda _: self._clock))
        return stack

    def _timed(self, half: Callable[[Round], None]) -> Callable[[Round], None]:
        def run(round_: Round) -> None:
            if self._left is not None:
                self._seconds += time.thread_time() - self._left
            half(round_)
            self._left = time.thread_time()

        return run

    def _draft(self, round_: Round) -> None:
        self._clock += DRAFT_SECONDS * round_.shape.num_draft_tokens

    def _verify(self, round_: Round) -> None:
        self.host_seconds.append(self._seconds)
        self._seconds = 0.0
        self._clock += VERIFY_SECONDS
        inputs, outputs = round_.inputs.device, round_.outputs.device
        outputs.memory.zero_()
        outputs["tokens"].random_(1, VOCABULARY)
        outputs["count"].copy_(inputs["count"])
        outputs["draft_samples"].copy_(outputs["tokens"])
        outputs["draft_tokens"].copy_(outputs["tokens"][:, :-1])
        for row, count in enumerate(inputs["count"].tolist()):
            accepted = 0
            while accepted < count and self._random.random() < self._acceptance:
                accepted += 1
            outputs["accepted"][row] = accepted
            if accepted < count or self._random.random() >= self._acceptance:
                outputs["draft_samples"][row, accepted] = 0


def decode(engine: Engine, rows: int, tokens: int, speculation: Speculation) -> None:
    """Decode answers of one length, all at once."""
    ended, left = threading.Event(), [rows]

    def deliver(event: Event) -> None:
        if isinstance(event, Failed):
            raise event.error
        left[0] -= isinstance(event, Finished)
        if not left[0]:
            ended.set()

    for number in range(rows):
        request = GenerationRequest(
            prompt_ids=tuple(range(2 + number, 34 + number)),
            mixture=Mixture.of({"tuned": 1.0}),
            sampling=SamplingParams(top_p=0.9, seed=number),
            max_tokens=tokens,
            speculation=speculation,
        )
        engine.submit(request, deliver)
    ended.wait()


def measure(engine: Engine, rows: int, tokens: int, speculation: Speculation, acceptance: float) -> float:
    """Median CPU seconds of the host for a round."""
    device = SimulatedDevice(acceptance)
    with device.installed():
        decode(engine, rows, tokens, speculation)
    return statistics.median(device.host_seconds[_WARM_UP:])


def main(
    tokens: Annotated[int, typer.Option(help="Length of an answer.")] = 400,
    repeats: Annotated[int, typer.Option(help="Turns; the least of their medians is shown.")] = 5,
    acceptance: Annotated[float, typer.Option(help="How often a draft token is accepted.")] = 0.7,
) -> None:
    """Measure every setting in turns, and print a table."""
    torch.set_num_threads(1)
    config = EngineConfig(device="cpu", kv_cache_tokens=16384)
    speculations: tuple[Speculation, ...] = ("off", 4, "auto")
    with tempfile.TemporaryDirectory() as folder:
        with (
            patch.object(runner, "host_may_look", lambda _: False),
            patch.object(runner, "overlaps_rounds", lambda _: True),
        ):
            engine = Engine(tiny(Path(folder)).recipe, config)

        def contestant(rows: int, speculation: Speculation) -> Callable[[int], float]:
            return lambda _: measure(engine, rows, tokens, speculation, acceptance)

        settings = {setting: contestant(*setting) for setting in product((1, 16), speculations)}
        measured = take_turns(settings, repeats, warm_up=0)
        engine.close()
    rows = [
        [str(rows), str(speculation), f"{1000 * min(seconds):.2f}"]
        for (rows, speculation), seconds in measured.items()
    ]
    print(markdown(["requests", "speculation", "host, CPU ms per round"], rows))


if __name__ == "__main__":
    typer.run(main)
