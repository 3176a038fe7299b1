"""What the formula says, by transformers and forty lines of arithmetic: full forward passes in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vllm_tests.tiny import NEVER, SECTION, VOCABULARY, merged

Weights = Mapping[str, Any]
"""Weights of behaviors, each a number or a function of the position in the answer."""


@dataclass(frozen=True)
class Mix:
    """What a request asks for."""

    weights: Weights = field(default_factory=dict)
    strength: float = 1.0
    top_p: float = 1.0


class Oracle:
    """The distribution of the next token.

    Args:
        folder: The tiny family's.
        unscaled: Ids that are never up-scaled.
    """

    def __init__(self, folder: Path, unscaled: Sequence[int] = ()) -> None:
        self._unscaled = list(unscaled)
        self._model = lru_cache(maxsize=None)(lambda name: merged(folder, name))
        self._logits = lru_cache(maxsize=None)(self._forward)

    def log_p(self, prompt: Sequence[int], answer: Sequence[int], mix: Mix) -> Tensor:
        """[V], log-probabilities of the token after prompt and answer."""
        position = len(answer)
        weights = {b: w(position) if callable(w) else w for b, w in mix.weights.items()}
        ids = (*prompt, *answer)
        base = self._log_softmax("base", ids)
        if not weights:
            assert mix.strength == mix.top_p == 1
            return self._allowed(base)
        references = {SECTION["behaviors"][name]["reference"] for name in weights} - {"base"}
        rows = [self._log_softmax(name, ids) for name in references]
        reference = torch.stack(rows).mean(0) if rows else base
        mixture = reference.clone()
        for name, weight in weights.items():
            pair = SECTION["behaviors"][name]
            mixture += weight * (
                self._log_softmax(pair["tuned"], ids) - self._log_softmax(pair["reference"], ids)
            )
        mixture = self._allowed(mixture)
        scaled = mixture + mix.strength * (base - reference)
        follows = torch.ones(VOCABULARY, dtype=torch.bool)
        follows[self._nucleus(mixture, mix.top_p)] = False
        if references:
            follows[self._unscaled] = True
        return self._allowed(torch.where(follows, mixture, scaled))

    def greedy(self, prompt: Sequence[int], mix: Mix, length: int) -> tuple[list[int], list[Tensor]]:
        """The most probable answer, and the log-probabilities of each of its positions."""
        answer: list[int] = []
        rows = []
        for _ in range(length):
            rows.append(self.log_p(prompt, answer, mix))
            answer.append(int(rows[-1].argmax()))
        return answer, rows

    @staticmethod
    def _nucleus(mixture: Tensor, top_p: float) -> list[int]:
        inside, total = [], 0.0
        probabilities = mixture.double().exp()
        for token in probabilities.argsort(descending=True).tolist():
            if total >= top_p:
                break
            inside.append(token)
            total += float(probabilities[token])
        return inside

    @staticmethod
    def _allowed(log_p: Tensor) -> Tensor:
        log_p = log_p.clone()
        log_p[list(NEVER)] = -torch.inf
        return log_p.log_softmax(-1)

    def _log_softmax(self, name: str, ids: tuple[int, ...]) -> Tensor:
        # Sums of -inf would be NaN; whatever stands here is -inf in the end.
        return self._allowed(self._logits(name, ids)).nan_to_num(neginf=0.0)

    @torch.inference_mode()
    def _forward(self, name: str, ids: tuple[int, ...]) -> Tensor:
        return self._model(name)(torch.tensor([ids]), use_cache=False).logits[0, -1, :VOCABULARY].clone()
