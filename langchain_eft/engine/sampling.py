"""Drawing a token from p: penalties, filters, and random numbers keyed by nothing but seed and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from langchain_eft.engine.formula import nucleus
from langchain_eft.engine.request import SamplingParams

_MASK32 = 0xFFFFFFFF


@dataclass(frozen=True)
class SamplingRow:
    """What sampling needs to know of one row.

    Attributes:
        params: The request's sampling parameters.
        prompt: Token ids of the prompt.
        output: Token ids generated so far.
    """

    params: SamplingParams
    prompt: Sequence[int]
    output: Sequence[int]


@dataclass(frozen=True)
class Filters:
    """What any row of a batch makes necessary: known on the host, so that a draw asks the device nothing.

    Attributes:
        greedy: Some row takes its most probable token.
        sampled: Some row draws at random.
        top_k: Bound on the largest k of the rows that have one; 0 where none has.
        top_p: Some row has a nucleus.
        min_p: Some row has a floor.
    """

    greedy: bool
    sampled: bool
    top_k: int
    top_p: bool
    min_p: bool

    @classmethod
    def of(cls, params: Sequence[SamplingParams]) -> Filters:
        """What these parameters make necessary."""
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
    """Sampling parameters of R rows as tensors.

    Attributes:
        seeds: [R] int64.
        positions: [R] int64, how many tokens are before the one that is drawn.
        greedy: [R] bool.
        temperature: [R] float32, 1 where greedy.
        top_k: [R] int64, 0 where all are kept.
        top_p: [R] float32.
        min_p: [R] float32.
        filters: Which of them matter.
    """

    seeds: Tensor
    positions: Tensor
    greedy: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    filters: Filters

    @classmethod
    def of(cls, rows: Sequence[SamplingRow], device: torch.device) -> Sampling:
        """The parameters of rows that lie on the host."""
        params = [row.params for row in rows]
        positions = [len(row.prompt) + len(row.output) for row in rows]
        whole = torch.tensor([[p.seed for p in params], positions, [p.top_k for p in params]]).to(device)
        real = torch.tensor(
            [[p.temperature or 1.0 for p in params], [p.top_p for p in params], [p.min_p for p in params]]
        ).to(device)
        greedy = torch.tensor([p.temperature == 0 for p in params]).to(device)
        return cls(whole[0], whole[1], greedy, real[0], whole[2], real[1], real[2], Filters.of(params))


class Draw(NamedTuple):
    """A token for each of R rows, and what it was drawn from.

    Attributes:
        tokens: [R] int64.
        probs: [R, V] float64, or None if every row is greedy.
    """

    tokens: Tensor
    probs: Tensor | None


def draw(logits: Tensor, sampling: Sampling) -> Draw:
    """Draw a token for every row, with the random number of its seed and position.

    Args:
        logits: [R, V] log-probabilities up to a constant per row, penalties applied.
        sampling: R rows.
    """
    logits = logits.float()
    if not sampling.filters.sampled:
        return Draw(logits.argmax(-1), None)
    probs = probabilities(logits, sampling)
    return Draw(invert_cdf(probs, uniform(sampling.seeds, sampling.positions)), probs)


@dataclass(frozen=True)
class Penalties:
    """Penalties and biases of R rows.

    Attributes:
        counts: [R, V] float32, how often the answer holds each token.
        seen: [R, V] bool, whether prompt or answer hold it.
        repetition: [R] float32, 1 for none.
        frequency: [R] float32.
        presence: [R] float32.
        bias: [R, V] float32.
    """

    counts: Tensor
    seen: Tensor
    repetition: Tensor
    frequency: Tensor
    presence: Tensor
    bias: Tensor

    @classmethod
    def of(cls, rows: Sequence[SamplingRow], size: int, device: torch.device) -> Penalties:
        """The penalties of rows that lie on the host.

        Args:
            rows: R rows.
            size: Number of token ids.
            device: Where they go.
        """
        counts = torch.stack([_count(row.output, size) for row in rows])
        seen = counts + torch.stack([_count(row.prompt, size) for row in rows]) > 0
        params = [row.params for row in rows]
        strengths = torch.tensor(
            [[p.repetition_penalty, p.frequency_penalty, p.presence_penalty] for p in params]
        ).to(device)
        bias = torch.zeros(len(rows), size)
        for of_row, p in zip(bias, params, strict=True):
            if p.logit_bias:
                of_row[list(p.logit_bias)] = torch.tensor(list(p.logit_bias.values()))
        repetition, frequency, presence = strengths.unbind(1)
        return cls(counts.to(device), seen.to(device), repetition, frequency, presence, bias.to(device))


def penalize(logits: Tensor, penalties: Penalties) -> Tensor:
    """Apply penalties and biases.

    Args:
        logits: [R, V] float32 log-probabilities up to a constant per row.
        penalties: R rows.

    Returns:
        [R, V] log-probabilities up to a constant per row.
    """
    logprobs = logits.log_softmax(-1)
    # Log-probabilities are never positive, so the penalty always multiplies.
    logprobs = torch.where(penalties.seen, logprobs * penalties.repetition[:, None], logprobs)
    counted = penalties.frequency[:, None] * penalties.counts
    return logprobs - (counted + penalties.presence[:, None] * (penalties.counts > 0)) + penalties.bias


def reshape(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Apply penalties and biases to the rows that have any.

    Args:
        logits: [R, V] float32.
        rows: R rows.

    Returns:
        [R, V]; rows without penalties are unchanged.
    """
    touched = [i for i, row in enumerate(rows) if row.params.reshapes]
    if not touched:
        return logits
    penalties = Penalties.of([rows[i] for i in touched], logits.shape[-1], logits.device)
    logits = logits.clone()
    logits[touched] = penalize(logits[touched], penalties)
    return logits


def _count(tokens: Sequence[int], size: int) -> Tensor:
    return torch.bincount(torch.tensor(tokens, dtype=torch.int64), minlength=size).float()


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Temperature, then top-k, top-p and min-p.

    Args:
        logits: [R, V] float32 log p up to a constant per row, penalties applied.
        sampling: R rows.

    Returns:
        [R, V] float64 probabilities; filtered tokens have exactly 0. A greedy row has all on its best token.
    """
    filters = sampling.filters
    logits = truncate(logits / sampling.temperature[:, None], sampling)
    if filters.min_p:
        floor = logits.amax(-1) + sampling.min_p.log()
        logits = logits.masked_fill(logits < floor[:, None], float("-inf"))
    probs = logits.double().softmax(-1)
    if filters.greedy:
        best = torch.zeros_like(probs).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        probs = torch.where(sampling.greedy[:, None], best, probs)
    return probs


def truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Top-k, then top-p: the filters that sort.

    Args:
        logits: [R, V] float32, temperature applied.
        sampling: R rows.

    Returns:
        [R, V], -inf where a token is dropped.
    """
    if sampling.filters.top_k:
        logits = logits.masked_fill(logits < _kth(logits, sampling)[:, None], float("-inf"))
    if sampling.filters.top_p:
        keep = nucleus(logits.log_softmax(-1), sampling.top_p)
        logits = logits.masked_fill(~keep, float("-inf"))
    return logits


def _kth(logits: Tensor, sampling: Sampling) -> Tensor:
    """[R] the smallest logit that top-k keeps."""
    top = logits.topk(min(sampling.filters.top_k, logits.shape[-1]), -1).values
    last = (sampling.top_k.clamp(1, top.shape[-1]) - 1)[:, None]
    # A row without top-k is compared with what drops nothing.
    return torch.where(sampling.top_k > 0, top.gather(-1, last)[:, 0], float("-inf"))


def invert_cdf(probs: Tensor, u: Tensor) -> Tensor:
    """The token at which the cumulative probability passes `u`; never one of probability 0.

    One uniform number per token keeps a seed's text stable against rounding: it changes only if `u` lies
    within rounding of a boundary.

    Args:
        probs: [B, V] float64.
        u: [B] float64 in [0, 1).

    Returns:
        [B] int64.
    """
    cdf = probs.cumsum(-1)
    index = torch.searchsorted(cdf, (u * cdf[:, -1])[:, None], right=True)[:, 0]
    return index.clamp(max=probs.shape[-1] - 1)


def uniform(seeds: Tensor, positions: Tensor, purpose: int = 0) -> Tensor:
    """Counter-based random numbers: the same for the same arguments, independent otherwise.

    Args:
        seeds: [B] int64, not negative.
        positions: [B] int64 position in the sequence.
        purpose: Tells apart several draws at one position.

    Returns:
        [B] float64 in [0, 1), with 53 random bits.
    """
    purposes = torch.full_like(positions, purpose)
    words = philox4x32(
        (positions & _MASK32, positions >> 32, purposes, torch.zeros_like(positions)),
        (seeds & _MASK32, seeds >> 32),
    )
    return ((words[0] >> 5) * 2**26 + (words[1] >> 6)).double() * 2.0**-53


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Args:
        counter: Four int64 tensors that hold 32-bit words.
        key: Two int64 tensors that hold 32-bit words.

    Returns:
        Four int64 tensors that hold 32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap around, which leaves their low and (masked) high words right.
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _MASK32) ^ c1 ^ k0,
            product1 & _MASK32,
            ((product0 >> 32) & _MASK32) ^ c3 ^ k1,
            product0 & _MASK32,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _MASK32, (k1 + 0xBB67AE85) & _MASK32
    return c0, c1, c2, c3
