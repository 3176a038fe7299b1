"""transformers' assisted generation: the base alone, with drafts of a small model."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rivals.generate import Generate
from benchmarks.rivals.result import Prompts, Result
from benchmarks.rivals.rival import Rival

MAX_SINGLE_PROMPTS = 4
"""Prompts of a batch that a contestant without batches decodes. The speed is the same for all prompts."""


class Assisted(Generate):
    """`generate` with drafts of the small tuned model; transformers does not accept batches here.

    Args:
        folder: A family.
    """

    def __init__(self, folder: Path) -> None:
        from benchmarks.rivals.family import load_model

        super().__init__(folder)
        self._tuned = load_model(folder / "tuned")

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:
        parts = [
            self._generate([prompt], tokens, temperature, seed + i, assistant_model=self._tuned)
            for i, prompt in enumerate(prompts[:MAX_SINGLE_PROMPTS])
        ]
        return Result(
            tokens=sum(part.tokens for part in parts),
            seconds=sum(part.seconds for part in parts),
            first_token=parts[0].first_token,
            passes=sum(part.passes for part in parts),
            acceptance_rate=None,
            answers=[answer for part in parts for answer in part.answers],
        )


ASSISTED = Rival(
    "assisted generation, base alone",
    "assisted generation",
    Assisted,
    lacks="behaviors; batches: requests wait for one another; tools and schemas",
)
