"""What the formula says of the tiny family: full forward passes of transformers in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unit_tests.oracle.formula import formula_log_p
from vllm_tests.tiny import NEVER, SECTION, VOCABULARY, load

Weights = Mapping[str, Any]
"""Weights of behaviors, each a number or a function of the position in the answer."""

ALLOWED = [token for token in range(VOCABULARY) if token not in NEVER]


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
        self._unscaled = [ALLOWED.index(token) for token in unscaled]
        self._model = lru_cache(maxsize=None)(lambda name: load(folder, name))
        self._log_p = lru_cache(maxsize=None)(self._forward)

    def log_p(self, prompt: Sequence[int], answer: Sequence[int], mix: Mix) -> Tensor:
        """[V], log-probabilities of the token after prompt and answer."""
        ids = (*prompt, *answer)
        pairs = []
        for name, weight in mix.weights.items():
            models = SECTION["behaviors"][name]
            tuned, reference = (self._log_p(models[each], ids) for each in ("tuned", "reference"))
            pairs.append((weight(len(answer)) if callable(weight) else weight, tuned, reference))
        references = {SECTION["behaviors"][name]["reference"] for name in mix.weights} - {"base"}
        base = self._log_p("base", ids)
        small = torch.stack([self._log_p(name, ids) for name in references or ["base"]]).mean(0)
        log_p = formula_log_p(base, small, pairs, mix.strength, mix.top_p, self._unscaled)
        return torch.full([VOCABULARY], -torch.inf).index_copy(0, torch.tensor(ALLOWED), log_p)

    def greedy(self, prompt: Sequence[int], mix: Mix, length: int) -> tuple[list[int], list[Tensor]]:
        """The most probable answer, and the log-probabilities of each of its positions."""
        answer: list[int] = []
        rows = []
        for _ in range(length):
            rows.append(self.log_p(prompt, answer, mix))
            answer.append(int(rows[-1].argmax()))
        return answer, rows

    @torch.inference_mode()
    def _forward(self, name: str, ids: tuple[int, ...]) -> Tensor:
        """Log-probabilities of the allowed tokens."""
        return self._model(name)(torch.tensor([ids]), use_cache=False).logits[0, -1, ALLOWED].log_softmax(-1)
