"""What a verification decodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import HumanMessage

from langchain_eft.chat.prompts import conversation_prompts, text_prompts
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.request import (
    GenerationRequest,
    SamplingParams,
    Speculation,
)

PROMPTS = (
    "What is the capital of Japan?",
    "Write a short poem about the rain.",
    "Explain to a child why the sky is blue.",
    "How do I bake bread at home?",
    "Tell me about whales.",
    "Write a Python function that adds two numbers.",
)


BATCHES = (1, 8)


GREEDY_SPECULATIONS: tuple[Speculation, ...] = ("off", "auto", 1, 2, 4, 8)


SAMPLED_SPECULATIONS: tuple[Speculation, ...] = ("off", "auto", 4)


SAMPLED = (SamplingParams(temperature=1.0, seed=0), SamplingParams(temperature=0.7, top_p=0.9, seed=0))


FIRST_TOKENS = (*SAMPLED, SamplingParams(temperature=1.3, top_k=40, min_p=0.02, seed=0))


FIRST_TOKENS_PER_SAMPLE = 50


ALPHA = 1e-4
"""Chance that a run calls a right engine wrong, as far as sums of many tokens are normally distributed."""


TESTS = len(SAMPLED) * len(SAMPLED_SPECULATIONS) * len(BATCHES) + len(FIRST_TOKENS)
"""Tests of hypotheses in one run, among which `ALPHA` is divided (Bonferroni)."""


ROUNDING = 0.1
"""Relative error that low precision may leave in a probability: bfloat16 steps by 1/8 at logits of 16."""


@dataclass(frozen=True)
class Plan:
    """What is verified, and how thoroughly.

    Attributes:
        prompts: Prompts in token ids, at least one, and by name what some models read instead of each.
        mixture: The mixture that decodes.
        upscale_strength: beta.
        upscale_top_p: Nucleus for conservative decoding.
        samples: Sampled answers per row.
        max_tokens: Longest answer.
        seed: Same seed, same samples.
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
        """One completion of this plan's mixture."""
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
    """Texts as a user's messages in the chat template, or as they are where there is none.

    Returns:
        Token ids of each prompt, and by name what some of the mixture's models read instead.

    Raises:
        RequestError: A behaviour takes away what some text does not have.
    """
    if tokenizer.chat_template:
        return dict(conversation_prompts(tokenizer, recipe, mixture, [HumanMessage(text)]) for text in texts)
    return dict(text_prompts(tokenizer, recipe, mixture, text) for text in texts)


@dataclass
class Answer:
    """What the engine has decoded for a prompt.

    Attributes:
        prompt: Its prompt in token ids.
        tokens: Token ids, the end token included.
        drafted: Tokens guessed ahead.
        accepted: Guesses that were right.
    """

    prompt: tuple[int, ...]
    tokens: list[int] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0


def describe(sampling: SamplingParams) -> str:
    """The settings of a sampler that matter here, in words."""
    filters = {
        "top_p": sampling.top_p < 1, "top_k": sampling.top_k > 0, "min_p": sampling.min_p > 0
    }  # fmt: skip
    active = [f"{name} {getattr(sampling, name):g}" for name, on in filters.items() if on]
    return ", ".join([f"temperature {sampling.temperature:g}", *active])
