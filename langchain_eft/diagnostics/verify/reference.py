"""A plain reference loop: the formula, token by token, without any of the engine's speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import torch
from torch import Tensor

from langchain_eft.diagnostics.verify.plan import Answer, Plan
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.models.self_check import plain_variant_logits
from langchain_eft.engine.recipe.schedules import weight_at
from langchain_eft.engine.request import (
    SamplingParams,
)

_NEVER = -1e9
"""Log-probability of what is never said: finite, so that 0 times it is 0."""


@dataclass(frozen=True)
class Reference:
    """Log-probabilities by the formula's definition, from full forwards in float64.

    Attributes:
        family: The engine's models.
        plan: The mixture and its settings.
    """

    family: ModelFamily
    plan: Plan

    @property
    def exact(self) -> bool:
        """Whether the weights are float32, where rounding decides next to nothing."""
        return all(next(m.module.parameters()).dtype == torch.float32 for m in self.family.models)

    @cached_property
    def _pairs(self) -> dict[str, tuple[Term, Term]]:
        return {name: self.family.behaviors[name] for name in self.plan.mixture.active()}

    @property
    def _references(self) -> list[Term]:
        """The terms whose mean is S, none where up-scaling needs no S.

        The engine refuses `upscale_strength` and `upscale_top_p` where there are several.
        """
        pairs, base = self._pairs or self.family.behaviors, self.family.base
        own = dict.fromkeys(
            replace(reference, prompt_name=base.prompt_name) for _, reference in pairs.values()
        )
        own.pop(base, None)
        if self.plan.upscale_strength != 1 or self.plan.upscale_top_p < 1:
            return list(own)[:1] or [base]
        return list(own) if self._pairs and self.family.unscaled is not None else []

    def log_p(self, ids: Sequence[int], last: int) -> Tensor:
        """Log p of the first `last` tokens of an answer, normalised.

        Args:
            ids: The prompt and all of the answer but its last token.
            last: Tokens of the answer.

        Returns:
            [last, V] float64 over the common vocabulary.
        """
        prompt, answer = tuple(ids[: len(ids) - last + 1]), ids[len(ids) - last + 1 :]
        texts = {"": prompt, **self.plan.prompts.get(prompt, {})}

        @cache
        def of(term: Term) -> Tensor:
            text = torch.tensor([[*texts[term.prompt_name], *answer]], device=self.family.vocabulary.device)
            logits = plain_variant_logits(self.family.models[term.model], text, term.variant)
            known = logits[-last:, : len(self.family.vocabulary)].double()
            return known.masked_fill(~self.family.vocabulary, _NEVER).log_softmax(-1)

        plan = self.plan
        large = of(self.family.base)
        weights = plan.mixture.active()
        delta = torch.zeros_like(large)
        for name, (tuned, reference) in self._pairs.items():
            weight = [weight_at(weights[name], position) for position in range(last)]
            delta += delta.new_tensor(weight)[:, None] * (of(tuned) - of(reference))
        references = self._references
        if not references:
            total = large + delta
        else:
            small = torch.stack(list(map(of, references))).mean(0)
            mixture = (small + delta).log_softmax(-1)
            upscale = plan.upscale_strength * (large - small)
            if self._pairs and self.family.unscaled is not None:
                upscale = upscale.masked_fill(self.family.unscaled, 0.0)
            total = mixture + torch.where(nucleus(mixture, plan.upscale_top_p), upscale, 0.0)
        return total.masked_fill(~self.family.vocabulary, _NEVER).log_softmax(-1)

    def log_p_of(self, answer: Answer) -> Tensor:
        """Log p at every position of an answer, [tokens, V]."""
        return self.log_p((*answer.prompt, *answer.tokens[:-1]), len(answer.tokens))


def nucleus(log_p: Tensor, top_p: float) -> Tensor:
    """The smallest set of tokens with probability `top_p`, [..., V] bool; all of them for 1."""
    if top_p == 1:
        return torch.ones_like(log_p, dtype=torch.bool)
    ordered, order = log_p.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    return torch.zeros_like(log_p, dtype=torch.bool).scatter(-1, order, before < top_p)


def distribution(log_p: Tensor, params: SamplingParams) -> Tensor:
    """What is drawn from: temperature, then top-k, top-p and min-p, [..., V] float64."""
    log_p = (log_p / params.temperature).log_softmax(-1)
    if params.top_k:
        smallest = log_p.topk(min(params.top_k, log_p.shape[-1])).values[..., -1:]
        log_p = log_p.masked_fill(log_p < smallest, _NEVER).log_softmax(-1)
    log_p = log_p.masked_fill(~nucleus(log_p, params.top_p), _NEVER)
    if params.min_p:
        floor = log_p.amax(-1, keepdim=True) + math.log(params.min_p)
        log_p = log_p.masked_fill(log_p < floor, _NEVER)
    return log_p.softmax(-1)
