"""transformers' `generate` with the base alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.rivals.result import Prompts, Result, clock
from benchmarks.rivals.rival import Rival


class Generate:
    """`generate` with the base alone; batches are padded on the left.

    Args:
        folder: A family.
    """

    def __init__(self, folder: Path) -> None:
        from benchmarks.rivals.family import load_model

        self._base = load_model(folder / "base")

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:
        return self._generate(prompts, tokens, temperature, seed)

    def _generate(
        self, prompts: Prompts, tokens: int, temperature: float, seed: int, **options: Any
    ) -> Result:
        import torch
        from transformers import StoppingCriteriaList

        from benchmarks.rivals.proxy_loop import left_padded

        torch.manual_seed(seed)
        steps: list[tuple[float, int]] = []

        def record(input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            """A stopping criterion that never stops. It records the time and number of tokens of a step."""
            steps.append((clock(), input_ids.shape[1]))
            return torch.zeros(len(input_ids), dtype=torch.bool)

        ids, mask = left_padded(prompts)
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_k": 0}
            if temperature
            else {"do_sample": False}
        )
        started = clock()
        answers = self._base.generate(
            ids,
            attention_mask=mask,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            stopping_criteria=StoppingCriteriaList([record]),
            **sampling,
            **options,
        )
        (first, start), (last, end) = steps[0], steps[-1]
        return Result(
            tokens=len(prompts) * (end - start),
            seconds=last - first,
            first_token=first - started,
            passes=len(prompts) * (len(steps) - 1),
            acceptance_rate=None,
            answers=answers[:, ids.shape[1] :].tolist(),
        )


GENERATE = Rival(
    "generate, base alone",
    "generate",
    Generate,
    lacks="behaviors; drafts; requests that join a running batch; tools and schemas",
)
