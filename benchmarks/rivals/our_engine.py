"""Our engine: plain EFT, EFT with drafts, and the base alone. One process has one engine for all three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.rivals.result import Prompts, Result, clock
from benchmarks.rivals.rival import Rival


class OurEngine:
    """Our engine.

    Args:
        folder: A family.
    """

    def __init__(self, folder: Path) -> None:
        from benchmarks.rivals.family import Family
        from langchain_eft.engine.config import EngineConfig
        from langchain_eft.engine.engine import Engine
        from langchain_eft.engine.events import Event, TextDelta
        from langchain_eft.engine.request import Generation, GenerationRequest

        class TimedEngine(Engine):
            """An engine whose events come by the clock of every contestant."""

            def submit(self, request: GenerationRequest, deliver: Callable[[Event], None]) -> Generation:
                return super().submit(request, lambda event: deliver(timed(event)))

        def timed(event: Event) -> Event:
            return replace(event, at=clock()) if isinstance(event, TextDelta) else event

        family = Family.load(folder)
        self._engine = TimedEngine(family.recipe, EngineConfig(max_batch_size=max(family.requests)))
        self._mixture = {family.behavior: 1.0}
        self._bias = dict.fromkeys(family.end_ids, -100.0)

    def close(self) -> None:
        """Free the weights."""
        self._engine.close()

    def decode(
        self,
        prompts: Prompts,
        tokens: int,
        temperature: float,
        seed: int,
        *,
        speculation: Any = "off",
        base_alone: bool = False,
    ) -> Result:
        from langchain_eft.diagnostics.bench import summarize
        from langchain_eft.diagnostics.decoded_answer import decode
        from langchain_eft.engine.events import acceptance_rate
        from langchain_eft.engine.recipe.mixture import Mixture
        from langchain_eft.engine.request import GenerationRequest, SamplingParams

        started = clock()
        answers = decode(
            self._engine,
            [
                GenerationRequest(
                    prompt_ids=tuple(prompt),
                    mixture=Mixture() if base_alone else Mixture.of(self._mixture),
                    sampling=SamplingParams(temperature=temperature, logit_bias=self._bias, seed=seed + i),
                    max_tokens=tokens,
                    speculation=speculation,
                )
                for i, prompt in enumerate(prompts)
            ],
        )
        run = summarize([answers])
        return Result(
            tokens=run.tokens,
            seconds=run.seconds,
            first_token=max(answer.deltas[0].at for answer in answers) - started,
            passes=run.passes,
            acceptance_rate=acceptance_rate(run.accepted, run.drafted),
            answers=[list(answer.tokens) for answer in answers],
        )


PLAIN = Rival("our engine, plain", "our engine", OurEngine, lacks="drafts")
AUTO = Rival("our engine, auto", "our engine", OurEngine, options={"speculation": "auto"})
BASE_ALONE = Rival(
    "our engine, base alone", "our engine", OurEngine, lacks="behaviors", options={"base_alone": True}
)
