"""The contestant language-model-arithmetic. It runs in an environment of its own, with transformers 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.rivals.result import Prompts, Result, clock


class _StepTimes:
    """A retroactive operator that accepts everything. It is called for every answer after every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def accept(self, tokens: list[int], tokenizer: Any) -> int:  # noqa: ARG002
        self.times.append(clock())
        return 0


class Arithmetic:
    """L + F - S, plain or with the one speculative setting that is exact.

    Superseded(F, L + F - S) drafts with F. It runs F and S at every token, and L at every `factor`-th.
    If S waited as well, as in the EFT paper, its samples would be biased.

    Args:
        folder: A family.
        factor: 1 is plain.
    """

    def __init__(self, folder: Path, factor: int) -> None:
        from model_arithmetic import ModelArithmetic, PromptedLLM, Superseded

        def term(name: str, factor: int = 1) -> Any:
            return PromptedLLM(
                "",
                model=str(folder / name),
                speculative_factor=factor,
                prompt_template=lambda _, text: text,
            )

        self._step_times = _StepTimes()
        self._speculates = factor > 1
        tuned = term("tuned")
        formula = term("base", factor) + tuned - term("reference")
        self._arithmetic = ModelArithmetic(
            Superseded(tuned, formula) if self._speculates else formula,
            default_model=str(folder / "base"),
            dtype=torch.float32,
            calculate_statistics=self._speculates,  # speculation crashes without it
            retroactive_operators=[self._step_times],
        )
        self._passes = 0
        self._arithmetic.loaded_models[str(folder / "base")].register_forward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self._passes += 1

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:
        """Decode a batch. End tokens are not suppressed, so answers with an end token are shorter."""
        torch.manual_seed(seed)
        tokenizer = self._arithmetic.tokenizer
        self._step_times.times.clear()
        self._passes = 0
        started = clock()
        texts = self._arithmetic.generate_text(
            [tokenizer.decode(prompt) for prompt in prompts],
            max_length=tokens,
            batch_size=len(prompts),
            temperature=temperature,
            do_speculation=self._speculates,
        )
        answers = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        first_time = self._step_times.times[len(prompts) - 1]
        return Result(
            tokens=sum(len(answer) - 1 for answer in answers),
            seconds=self._step_times.times[-1] - first_time,
            first_token=first_time - started,
            passes=self._passes * len(prompts),
            acceptance_rate=None,
            answers=answers,
        )
