"""The usual loop for proxy tuning: three models with caches, one forward pass of each per token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.rivals.result import clock


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return [B, T] token ids and the attention mask of prompts that all end in the last column."""
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


class ProxyLoop:
    """Decodes log p = L + w (F - S) with transformers alone.

    Args:
        base: L.
        tuned: F.
        reference: S.
        end_ids: Tokens that are never drawn, so that answers have their full length.
        weight: w.
    """

    def __init__(
        self, base: Any, tuned: Any, reference: Any, end_ids: Sequence[int], weight: float = 1.0
    ) -> None:
        self._models = [(base, 1.0), (tuned, weight), (reference, -weight)]
        self._end_ids = list(end_ids)

    @torch.inference_mode()
    def decode(
        self, prompts: Sequence[Sequence[int]], tokens: int, temperature: float, seed: int
    ) -> tuple[list[list[int]], list[float]]:
        """Decode a batch.

        Args:
            prompts: Token ids, of any lengths.
            tokens: The number of tokens of each answer.
            temperature: 0 is greedy.
            seed: The seed of the random numbers.

        Returns:
            The answers, and for each token the time at which all answers had it.
        """
        from transformers import DynamicCache

        device = self._models[0][0].device
        generator = torch.Generator(device).manual_seed(seed)
        ids, mask = (x.to(device) for x in left_padded(prompts))
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        caches = [DynamicCache() for _ in self._models]
        tokens_by_step: list[list[int]] = []
        moments: list[float] = []
        for _ in range(tokens):
            total: Tensor | float = 0.0
            for (model, weight), cache in zip(self._models, caches, strict=True):
                logits = model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
                total = total + weight * logits
            ids = draw(total, self._end_ids, temperature, generator)
            tokens_by_step.append(ids[:, 0].tolist())  # as a loop does that checks for end tokens
            moments.append(clock())
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], 1)
            positions = positions[:, -1:] + 1
        return [list(answer) for answer in zip(*tokens_by_step, strict=True)], moments


def draw(logits: Tensor, forbidden: Sequence[int], temperature: float, generator: torch.Generator) -> Tensor:
    """Draw [B, 1] token ids from [B, V] logits."""
    logits[:, forbidden] = float("-inf")
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
