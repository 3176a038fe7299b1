"""The formula by its definition, with one full forward pass per model and no code of the engine's rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import torch
from torch import Tensor

from langchain_eft.diagnostics.verify.plan import VerificationPlan
from langchain_eft.engine.models.activation import activated
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.models.self_check import plain_variant_logits
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.schedules import Weight, weight_at
from langchain_eft.engine.request import SamplingParams

_IMPOSSIBLE = -1e9
"""Log-probability of tokens that are never drawn. It is finite, so its product with a weight of 0 is 0."""


@dataclass(frozen=True)
class Reference:
    """Log-probabilities by the definition of the formula, from full forward passes in float64.

    Attributes:
        family: The engine's models.
        plan: The mixture and its settings.
    """

    family: ModelFamily
    plan: VerificationPlan

    @property
    def exact(self) -> bool:
        """Whether the weights are float32. Then rounding hardly ever changes a greedy token."""
        return all(next(m.module.parameters()).dtype == torch.float32 for m in self.family.models)

    @cached_property
    def _pairs(self) -> dict[str, tuple[Term, Term]]:
        return {name: self.family.behaviors[name] for name in self.plan.mixture.active()}

    @property
    def _references(self) -> list[Term]:
        """The terms whose mean is S; empty if up-scaling does not need S.

        The engine refuses `upscale_strength` and `upscale_top_p` if a mixture has several references.
        """
        pairs, base = self._pairs or self.family.behaviors, self.family.base
        references = dict.fromkeys(
            replace(reference, prompt_name=base.prompt_name) for _, reference in pairs.values()
        )
        references.pop(base, None)
        if self.plan.upscale_strength != 1 or self.plan.upscale_top_p < 1:
            return list(references)[:1] or [base]
        return list(references) if self._pairs and self.family.unscaled is not None else []

    def log_p(self, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
        """Normalized log p after the prompt, and after each token of the beginning of an answer.

        Args:
            prompt: T token ids.
            answer: A token ids, the beginning of the answer.

        Returns:
            [A + 1, V] float64 over the common vocabulary.
        """
        prompts = {"": prompt, **self.plan.prompts.get(tuple(prompt), {})}
        positions = range(len(answer) + 1)

        @cache
        def log_probs(term: Term) -> Tensor:
            read = prompts[term.prompt_name]
            ids = torch.tensor([[*read, *answer]], device=self.family.vocabulary.device)
            reader = activated(term, self.family, read)
            logits = plain_variant_logits(self.family.models[term.model], ids, reader.variant, reader.begin)
            common = logits[-len(positions) :, : len(self.family.vocabulary)].double()
            return common.masked_fill(~self.family.vocabulary, _IMPOSSIBLE).log_softmax(-1)

        plan = self.plan
        large = log_probs(self.family.base)
        weights = plan.mixture.active()
        delta = torch.zeros_like(large)
        for name, (tuned, reference) in self._pairs.items():
            opened = _opened(weights[name], large)
            weight = [weight_at(weights[name], position, opened=opened[position]) for position in positions]
            delta += delta.new_tensor(weight)[:, None] * (log_probs(tuned) - log_probs(reference))
        references = self._references
        if not references:
            total = large + delta
        else:
            small = torch.stack(list(map(log_probs, references))).mean(0)
            mixture = (small + delta).log_softmax(-1)
            upscale = plan.upscale_strength * (large - small)
            if self._pairs and self.family.unscaled is not None:
                upscale = upscale.masked_fill(self.family.unscaled, 0.0)
            total = mixture + torch.where(nucleus(mixture, plan.upscale_top_p), upscale, 0.0)
        return total.masked_fill(~self.family.vocabulary, _IMPOSSIBLE).log_softmax(-1)


def _opened(weight: Weight, large: Tensor) -> list[bool]:
    """Whether a weight's gate is open at each of T positions, by [T, V] log-probabilities of the base."""
    if not isinstance(weight, Gate):
        return [False] * len(large)
    probs = large.exp()
    measured = probs.amax(-1).clamp(max=1) if weight.measure == "confidence" else -(probs * large).sum(-1)
    return [weight.opens(value) for value in measured.tolist()]


def nucleus(log_p: Tensor, top_p: float) -> Tensor:
    """The most probable tokens, and those equal to the last of them, that reach `top_p`, [..., V] bool."""
    if top_p == 1:
        return torch.ones_like(log_p, dtype=torch.bool)
    ordered = log_p.sort(dim=-1, descending=True).values
    before = ordered.exp().cumsum(-1) - ordered.exp()
    return log_p >= ordered.masked_fill(before >= top_p, 0.0).amin(-1, keepdim=True)


def distribution(log_p: Tensor, params: SamplingParams) -> Tensor:
    """The distribution to draw from, [..., V] float64: temperature, then top-k, top-p and min-p."""
    log_p = (log_p / params.temperature).log_softmax(-1)
    if params.top_k:
        smallest = log_p.topk(min(params.top_k, log_p.shape[-1])).values[..., -1:]
        log_p = log_p.masked_fill(log_p < smallest, _IMPOSSIBLE).log_softmax(-1)
    log_p = log_p.masked_fill(~nucleus(log_p, params.top_p), _IMPOSSIBLE)
    if params.min_p:
        floor = log_p.amax(-1, keepdim=True) + math.log(params.min_p)
        log_p = log_p.masked_fill(log_p < floor, _IMPOSSIBLE)
    return log_p.softmax(-1)
