"""What a contestant answers. Imports nothing, so that every environment can read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Result:
    """What decoding one batch took. Prompts are no part of it.

    Attributes:
        tokens: Tokens after the first one of every answer.
        seconds: Seconds for them.
        first_token: Seconds to the first token of all answers.
        passes: Passes of the large model that each answer took part in, summed over the answers.
        acceptance_rate: Share of guesses that were right, where somebody guesses and tells.
        answers: Token ids.
    """

    tokens: int
    seconds: float
    first_token: float
    passes: int
    acceptance_rate: float | None
    answers: list[list[int]]

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed over the whole batch."""
        return self.tokens / self.seconds


class Contestant(Protocol):
    """Decodes batches of prompts to answers of a given length."""

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result: ...
