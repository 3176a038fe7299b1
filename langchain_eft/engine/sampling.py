"""Drawing a token from p: penalties, filters, and random numbers keyed by nothing but seed and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
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

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken."""
        return self.params.temperature == 0


class Draw(NamedTuple):
    """A token for each of B rows, and what it was drawn from.

    Attributes:
        tokens: [B] int64.
        probs: [B, V] float64, or None if every row is greedy.
    """

    tokens: Tensor
    probs: Tensor | None


def draw(logits: Tensor, rows: Sequence[SamplingRow]) -> Draw:
    """Draw a token for every row, with the random number of its seed and position.

    Args:
        logits: [B, V] log-probabilities up to a constant per row.
        rows: B rows.
    """
    logits = reshape(logits.float(), rows)
    if all(row.greedy for row in rows):
        return Draw(logits.argmax(-1), None)
    probs = probabilities(logits, [row.params for row in rows])
    return Draw(invert_cdf(probs, uniform(*seeds_and_positions(rows, logits.device))), probs)


def seeds_and_positions(rows: Sequence[SamplingRow], device: torch.device) -> tuple[Tensor, Tensor]:
    """What the random numbers of the rows depend on, each [B] int64."""
    return (
        torch.tensor([row.params.seed for row in rows], device=device),
        torch.tensor([len(row.prompt) + len(row.output) for row in rows], device=device),
    )


def reshape(logits: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Apply penalties and biases to the rows that have any.

    Args:
        logits: [B, V] float32.
        rows: B rows.

    Returns:
        [B, V]; rows without penalties are unchanged.
    """
    touched = [i for i, row in enumerate(rows) if row.params.reshapes]
    if not touched:
        return logits
    logits = logits.clone()
    for i in touched:
        logits[i] = _penalize(logits[i].log_softmax(-1), rows[i])
    return logits


def _penalize(logprobs: Tensor, row: SamplingRow) -> Tensor:
    params, size = row.params, logprobs.shape[-1]
    if params.repetition_penalty != 1:
        seen = torch.tensor(sorted({*row.prompt, *row.output}), device=logprobs.device)
        # Log-probabilities are never positive, so the penalty always multiplies.
        logprobs[seen] *= params.repetition_penalty
    if (params.frequency_penalty or params.presence_penalty) and row.output:
        counts = torch.bincount(torch.tensor(row.output), minlength=size).to(logprobs)
        logprobs -= params.frequency_penalty * counts + params.presence_penalty * (counts > 0)
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logprobs.device)
        logprobs[ids] += torch.tensor(list(params.logit_bias.values())).to(logprobs)
    return logprobs


def probabilities(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Temperature, then top-k, top-p and min-p.

    Args:
        logits: [B, V] float32 log p up to a constant per row, penalties applied.
        params: B parameter sets.

    Returns:
        [B, V] float64 probabilities; filtered tokens have exactly 0. A greedy row has all on its best token.
    """

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=logits.device, dtype=logits.dtype)

    logits = logits / column([p.temperature or 1.0 for p in params])[:, None]
    largest_k = max(p.top_k for p in params)
    if largest_k:
        ks = torch.tensor([p.top_k or logits.shape[-1] for p in params], device=logits.device)
        top = logits.topk(min(largest_k, logits.shape[-1]), -1).values
        # A row without top-k is compared with its own smallest logit, which drops nothing.
        threshold = torch.where(
            ks <= top.shape[-1],
            top.gather(-1, (ks.clamp(max=top.shape[-1]) - 1)[:, None])[:, 0],
            logits.amin(-1),
        )
        logits = logits.masked_fill(logits < threshold[:, None], float("-inf"))
    if any(p.top_p < 1 for p in params):
        keep = nucleus(logits.log_softmax(-1), column([p.top_p for p in params]))
        logits = logits.masked_fill(~keep, float("-inf"))
    if any(p.min_p > 0 for p in params):
        floor = logits.amax(-1) + column([p.min_p for p in params]).log()
        logits = logits.masked_fill(logits < floor[:, None], float("-inf"))
    probs = logits.double().softmax(-1)
    greedy = [i for i, p in enumerate(params) if p.temperature == 0]
    if greedy:
        probs[greedy] = F.one_hot(logits[greedy].argmax(-1), logits.shape[-1]).double()
    return probs


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
