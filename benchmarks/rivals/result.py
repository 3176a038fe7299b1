"""The result of a contestant. This module imports no library, so every environment can import it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

CPU_TIME = "EFT_BENCHMARK_CPU_TIME"
"""Environment variable: if set, seconds are those of the contestant's CPU, not those of the wall clock."""

clock = time.process_time if os.environ.get(CPU_TIME) else time.perf_counter
"""The clock of every contestant, in seconds."""

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Result:
    """The cost of decoding one batch, without its prompts.

    Attributes:
        tokens: Tokens after the first one of every answer.
        seconds: Seconds for them.
        first_token: Seconds to the first token of all answers.
        passes: Passes of the large model that each answer took part in, summed over the answers.
        acceptance_rate: The share of accepted draft tokens; None if the contestant does not report it.
        answers: Token ids.
    """

    tokens: int
    seconds: float
    first_token: float
    passes: int
    acceptance_rate: float | None
    answers: list[list[int]]

    @classmethod
    def of_steps(cls, started: float, moments: Sequence[float], answers: list[list[int]]) -> Result:
        """The result of a contestant that decodes one token of every answer at a time.

        Args:
            started: When it began.
            moments: When it had each token of all answers.
            answers: Token ids.
        """
        steps = len(answers) * (len(moments) - 1)
        return cls(
            tokens=steps,
            seconds=moments[-1] - moments[0],
            first_token=moments[0] - started,
            passes=steps,
            acceptance_rate=None,
            answers=answers,
        )

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed over the whole batch."""
        return self.tokens / self.seconds


class Contestant(Protocol):
    """A contestant decodes batches of prompts to answers of a given length."""

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result: ...


def available_threads() -> int:
    """The threads that torch would use: those that the environment asks for, or the cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
