"""The prompts, settings and requests of a verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import HumanMessage

from langchain_eft.chat.prompts import conversation_prompts, text_prompts
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import GenerationRequest, SamplingParams, Speculation

PROMPTS = (
    "What is the capital of Japan?",
    "Write a short poem about the rain.",
    "Explain to a child why the sky is blue.",
    "How do I bake bread at home?",
    "Tell me about whales.",
    "Write a Python function that adds two numbers.",
)

BATCH_SIZES = (1, 8)

GREEDY_SPECULATIONS: tuple[Speculation, ...] = ("off", "auto", 1, 2, 4, 8)

SAMPLED_SPECULATIONS: tuple[Speculation, ...] = ("off", "auto", 4)

SAMPLINGS = (SamplingParams(temperature=1.0, seed=0), SamplingParams(temperature=0.7, top_p=0.9, seed=0))
"""Samplings of whole answers."""

FIRST_TOKEN_SAMPLINGS = (*SAMPLINGS, SamplingParams(temperature=1.3, top_k=40, min_p=0.02, seed=0))
"""Samplings of first tokens."""

FIRST_TOKENS_PER_SAMPLE = 50
"""First tokens drawn for each sampled answer of the plan."""

ALPHA = 1e-4
"""Probability that a verification fails although the engine is right. It assumes that sums of many tokens are
normally distributed."""

TESTS = len(SAMPLINGS) * len(SAMPLED_SPECULATIONS) * len(BATCH_SIZES) + len(FIRST_TOKEN_SAMPLINGS)
"""Number of statistical tests in one verification. They share `ALPHA` (Bonferroni)."""

ROUNDING = 0.1
"""Largest relative error of a probability in low precision: the step of bfloat16 is 1/8 at logits of 16."""


@dataclass(frozen=True)
class VerificationPlan:
    """The prompts and settings of a verification.

    Attributes:
        prompts: Token ids of at least one prompt, each with the prompts that some models read instead, by
            name.
        mixture: The mixture to decode.
        upscale_strength: beta.
        upscale_top_p: Nucleus for conservative decoding.
        samples: Sampled answers per check.
        max_tokens: Longest answer, in tokens.
        seed: The same seed gives the same samples.
    """

    prompts: Mapping[tuple[int, ...], Mapping[str, tuple[int, ...]]]
    mixture: Mixture
    upscale_strength: float = 1.0
    upscale_top_p: float = 1.0
    samples: int = 8
    max_tokens: int = 12
    seed: int = 0

    def request(
        self, prompt: Sequence[int], sampling: SamplingParams, speculation: Speculation, max_tokens: int
    ) -> GenerationRequest:
        """One completion with the plan's mixture."""
        return GenerationRequest(
            prompt_ids=tuple(prompt),
            contexts=dict(self.prompts.get(tuple(prompt), {})),
            mixture=self.mixture,
            upscale_strength=self.upscale_strength,
            upscale_top_p=self.upscale_top_p,
            sampling=sampling,
            speculation=speculation,
            max_tokens=max_tokens,
        )


def encode_prompts(
    tokenizer: Any, recipe: Recipe, mixture: Mixture, texts: Sequence[str]
) -> dict[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """Encode texts as user messages in the chat template, or unchanged if the tokenizer has no template.

    Returns:
        Token ids of each prompt, with the prompts that some models of the mixture read instead, by name.

    Raises:
        RequestError: A behavior removes a tag that a text does not have.
    """
    if tokenizer.chat_template:
        return dict(conversation_prompts(tokenizer, recipe, mixture, [HumanMessage(text)]) for text in texts)
    return dict(text_prompts(tokenizer, recipe, mixture, text) for text in texts)


def describe(sampling: SamplingParams) -> str:
    """The temperature and the active filters in words."""
    filters = {
        "top_p": sampling.top_p < 1, "top_k": sampling.top_k > 0, "min_p": sampling.min_p > 0
    }  # fmt: skip
    active = [f"{name} {getattr(sampling, name):g}" for name, on in filters.items() if on]
    return ", ".join([f"temperature {sampling.temperature:g}", *active])
