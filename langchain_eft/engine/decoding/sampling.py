"""Drawing a token from p: temperature and filters, and random numbers keyed by seed and position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.decoding.nucleus import nucleus
from langchain_eft.engine.decoding.race import race
from langchain_eft.engine.decoding.random import SAMPLE
from langchain_eft.engine.device_kernels import with_kernel
from langchain_eft.engine.request import SamplingParams


@dataclass(frozen=True)
class Filters:
    """The filters that some row of a batch needs. The host knows them, so draws read nothing back to it."""

    greedy: bool  # whether some row takes its most probable token
    sampled: bool  # whether some row draws at random
    top_k: int  # upper bound of the rows' k; 0 if no row has top-k
    top_p: bool  # whether some row has top-p
    min_p: bool  # whether some row has min-p

    @classmethod
    def of(cls, params: Sequence[SamplingParams]) -> Filters:
        """The filters that these parameters need."""
        random = [p for p in params if p.temperature]
        return cls(
            greedy=len(random) < len(params),
            sampled=bool(random),
            top_k=max((p.top_k for p in random), default=0),
            top_p=any(p.top_p < 1 for p in random),
            min_p=any(p.min_p > 0 for p in random),
        )


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of R rows as tensors."""

    seeds: Tensor  # [R] int64
    positions: Tensor  # [R] int64, number of tokens before the one that is drawn
    greedy: Tensor  # [R] bool, whether a row takes its most probable token
    temperature: Tensor  # [R] float32, 1 for greedy rows
    top_k: Tensor  # [R] int64, 0 to keep all tokens
    top_p: Tensor  # [R] float32, 1 to keep all tokens
    min_p: Tensor  # [R] float32, 0 to keep all tokens
    filters: Filters

    @classmethod
    def of(cls, params: Sequence[SamplingParams], positions: Sequence[int], device: torch.device) -> Sampling:
        """The parameters of R rows."""

        def column(values: Iterable[float]) -> Tensor:
            return torch.tensor(list(values)).to(device)

        return cls(
            seeds=column(p.seed for p in params),
            positions=column(positions),
            greedy=column(p.temperature == 0 for p in params),
            temperature=column(p.temperature or 1.0 for p in params),
            top_k=column(p.top_k for p in params),
            top_p=column(p.top_p for p in params),
            min_p=column(p.min_p for p in params),
            filters=Filters.of(params),
        )

    def of_rows(self, rows: Tensor) -> Sampling:
        """The parameters of some of the rows, [r] int64."""
        columns = {name: value[rows] for name, value in vars(self).items() if name != "filters"}
        return replace(self, **columns)


class Draw(NamedTuple):
    """A token for each of R rows, and the distributions that they were drawn from."""

    tokens: Tensor  # [R] int64
    probs: Tensor | None  # [R, V] float64, or None if every row is greedy


@with_kernel("decoding.triton:draw_kernel")
def draw(logits: Tensor, sampling: Sampling) -> Draw:
    """Draw a token for every row, with the random numbers of its seed and position.

    Args:
        logits: [R, V] log-probabilities up to a constant per row, penalties applied.
        sampling: R rows.
    """
    logits = logits.float()
    if not sampling.filters.sampled:
        return Draw(logits.argmax(-1), None)
    probs = probabilities.definition(logits, sampling)
    return Draw(race(probs, sampling.seeds, sampling.positions, SAMPLE), probs)


@with_kernel("decoding.triton:probabilities_kernel")
def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Apply temperature, then top-k, top-p and min-p.

    Args:
        logits: [R, V] float32 log p up to a constant per row, penalties applied.
        sampling: R rows.

    Returns:
        [R, V] float64 probabilities. Filtered tokens have exactly 0. In a greedy row, the best token has 1.
    """
    filters = sampling.filters
    logits = logits / sampling.temperature[:, None]
    if filters.top_k:
        logits = logits.masked_fill(outside_top_k(logits, sampling), float("-inf"))
    if filters.top_p:
        logits = logits.masked_fill(~nucleus(logits, sampling.top_p), float("-inf"))
    if filters.min_p:
        floor = logits.amax(-1) + sampling.min_p.log()
        logits = logits.masked_fill(logits < floor[:, None], float("-inf"))
    probs = logits.double().softmax(-1)
    if filters.greedy:
        best = torch.zeros_like(probs).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        probs = torch.where(sampling.greedy[:, None], best, probs)
    return probs


def outside_top_k(logits: Tensor, sampling: Sampling) -> Tensor:
    """[R, V] bool, the tokens that top-k drops.

    Args:
        logits: [R, V] float32, temperature applied.
        sampling: R rows.
    """
    return logits < _smallest_of_top_k(logits, sampling)[:, None]


def _smallest_of_top_k(logits: Tensor, sampling: Sampling) -> Tensor:
    """[R] the smallest logit that top-k keeps; -inf for rows without top-k."""
    top = logits.topk(min(sampling.filters.top_k, logits.shape[-1]), -1).values
    last = (sampling.top_k.clamp(1, top.shape[-1]) - 1)[:, None]
    return torch.where(sampling.top_k > 0, top.gather(-1, last)[:, 0], float("-inf"))
