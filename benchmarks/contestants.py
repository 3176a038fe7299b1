"""The contestants: our engine, the proxy loop, and transformers' own generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

from benchmarks.family import Family
from benchmarks.proxy_loop import ProxyLoop, left_padded
from benchmarks.result import Prompts, Result, clock


class OurEngine:
    """Our engine."""

    def __init__(self, family: Family, speculation: Any) -> None:
        from langchain_eft.engine.config import EngineConfig
        from langchain_eft.engine.engine import Engine

        self._engine = Engine(family.recipe, EngineConfig(max_batch_size=max(family.requests)))
        self._mixture = {family.behavior: 1.0}
        self._bias = dict.fromkeys(family.end_ids, -100.0)
        self._speculation = speculation

    def close(self) -> None:
        """Free the weights."""
        self._engine.close()

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:
        from langchain_eft.diagnostics.bench import decode, summarize
        from langchain_eft.engine.events import acceptance_rate
        from langchain_eft.engine.recipe.mixture import Mixture
        from langchain_eft.engine.request import GenerationRequest, SamplingParams

        started = clock()
        recorders = decode(
            self._engine,
            [
                GenerationRequest(
                    prompt_ids=tuple(prompt),
                    mixture=Mixture.of(self._mixture),
                    sampling=SamplingParams(temperature=temperature, logit_bias=self._bias, seed=seed + i),
                    max_tokens=tokens,
                    speculation=self._speculation,
                )
                for i, prompt in enumerate(prompts)
            ],
            clock,
        )
        run = summarize([recorders])
        return Result(
            tokens=run.tokens,
            seconds=run.seconds,
            first_token=max(recorder.deltas[0][0] for recorder in recorders) - started,
            passes=run.passes,
            acceptance_rate=acceptance_rate(run.accepted, run.drafted),
            answers=[recorder.tokens for recorder in recorders],
        )


class Proxy:
    """The proxy loop; batches are padded on the left."""

    def __init__(self, family: Family) -> None:
        self._loop = ProxyLoop(
            *(model(family.folder / name) for name in ("base", "tuned", "reference")), family.end_ids
        )

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:
        started = clock()
        answers, moments = self._loop.decode(prompts, tokens, temperature, seed)
        return Result(
            tokens=len(prompts) * (tokens - 1),
            seconds=moments[-1] - moments[0],
            first_token=moments[0] - started,
            passes=len(prompts) * (tokens - 1),
            acceptance_rate=None,
            answers=answers,
        )


class _StepTimes(StoppingCriteria):
    """A stopping criterion that never stops. It records the time and number of tokens of each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, int]] = []

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self.steps.append((clock(), input_ids.shape[1]))
        return torch.zeros(len(input_ids), dtype=torch.bool)


class Generate:
    """transformers' `generate` with the base alone; batches are padded on the left."""

    def __init__(self, family: Family) -> None:
        self._base = model(family.folder / "base")

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:
        torch.manual_seed(seed)
        return self._generate(prompts, tokens, temperature)

    def _generate(self, prompts: Prompts, tokens: int, temperature: float, **options: Any) -> Result:
        times, (ids, mask) = _StepTimes(), left_padded(prompts)
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
            stopping_criteria=StoppingCriteriaList([times]),
            **sampling,
            **options,
        )
        (first, start), (last, end) = times.steps[0], times.steps[-1]
        return Result(
            tokens=len(prompts) * (end - start),
            seconds=last - first,
            first_token=first - started,
            passes=len(prompts) * (len(times.steps) - 1),
            acceptance_rate=None,
            answers=answers[:, ids.shape[1] :].tolist(),
        )


MAX_SINGLE_PROMPTS = 4
"""Prompts of a batch that a contestant without batches decodes. The speed is the same for all prompts."""


class Assisted(Generate):
    """The same with drafts of the small tuned model; transformers does not accept batches here."""

    def __init__(self, family: Family) -> None:
        super().__init__(family)
        self._tuned = model(family.folder / "tuned")

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:
        torch.manual_seed(seed)
        parts = [
            self._generate([prompt], tokens, temperature, assistant_model=self._tuned)
            for prompt in prompts[:MAX_SINGLE_PROMPTS]
        ]
        return Result(
            tokens=sum(part.tokens for part in parts),
            seconds=sum(part.seconds for part in parts),
            first_token=parts[0].first_token,
            passes=sum(part.passes for part in parts),
            acceptance_rate=None,
            answers=[answer for part in parts for answer in part.answers],
        )


def model(folder: Path) -> Any:
    """Load a model with transformers."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
