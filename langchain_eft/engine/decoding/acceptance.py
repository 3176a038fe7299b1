"""The acceptance rule of speculative sampling, and a plain loop that defines what the engine does.

One rule draws every token from p. Its random numbers depend on the seed and the position only:

    x ~ q;  keep x if u q(x) < p(x), else draw from max(p - q, 0)      (Leviathan et al. 2023, theorem 1)

The result is an exact sample of p for any q. It equals x as often as any rule can make it: the rule is a
maximal coupling of p and q. The rule is the same whether x was drafted or not. So the answer depends neither
on the draft length nor on the rest of the batch. A draft token of any source is accepted if it is the token
that the rule draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from langchain_eft.engine.decoding.race import race
from langchain_eft.engine.decoding.random import RESIDUAL, SAMPLE, TEST, uniforms
from langchain_eft.engine.decoding.shortcuts import takes_shortcuts
from langchain_eft.engine.device_kernels import with_kernel


@with_kernel("decoding.triton:accept_or_resample_kernel")
def accept_or_resample(p: Tensor, q: Tensor, samples: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """Turn samples of q into samples of p, and keep as many as possible.

    Args:
        p: [R, V] float64 target probabilities.
        q: [R, V] float64 draft probabilities; a row equal to p keeps its sample.
        samples: [R] int64 samples of q.
        seeds: [R] int64.
        positions: [R] int64.

    Returns:
        [R] int64 samples of p.
    """
    p_sample, q_sample = (x.gather(1, samples[:, None])[:, 0] for x in (p, q))
    kept = uniforms(seeds, positions, TEST, 1)[0][:, 0] * q_sample < p_sample
    if not takes_shortcuts(p):
        return torch.where(kept, samples, _resample(p, q, samples, seeds, positions))
    # Most samples are kept, and residuals take long.
    refused = (~kept).nonzero()[:, 0]
    if not len(refused):
        return samples
    drawn = _resample(*(x[refused] for x in (p, q, samples, seeds, positions)))
    return samples.index_copy(0, refused, drawn)


def _resample(p: Tensor, q: Tensor, samples: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """Draw from the residual of each row."""
    residual = (p - q).clamp_(min=0)
    # Where p and q are almost equal, rounding may refuse a sample and leave no residual to draw from.
    none_left = residual.sum(-1) == 0
    return torch.where(none_left, samples, race(residual, seeds, positions, RESIDUAL))


def num_accepted(draft_tokens: Sequence[int], tokens: Sequence[int]) -> int:
    """How many draft tokens equal the tokens drawn from p at their positions, up to the first that differs.

    Args:
        draft_tokens: K draft tokens.
        tokens: K + 1 tokens drawn from p, each after the draft tokens before it.
    """
    accepted = 0
    while accepted < len(draft_tokens) and draft_tokens[accepted] == tokens[accepted]:
        accepted += 1
    return accepted


def speculative_decode(
    p: Callable[[Sequence[int]], Tensor],
    q: Callable[[Sequence[int]], Tensor],
    prompt: Sequence[int],
    max_tokens: int,
    draft_length: int,
    seed: int,
) -> list[int]:
    """Draft, verify, accept: speculative decoding of one request, as a definition of what the engine does.

    Args:
        p: The target distribution after some tokens, [V] float64.
        q: The draft distribution after some tokens, [V] float64.
        prompt: Token ids, at least one.
        max_tokens: Number of tokens of the answer.
        draft_length: K, the number of tokens drafted in a round.
        seed: Seed of the random numbers.

    Returns:
        The answer's token ids, which do not depend on `draft_length`.
    """

    def sample(tokens: Sequence[int]) -> Tensor:
        """A token drawn from q, [1]."""
        return race(q(tokens)[None], seeds, torch.tensor([len(tokens)]), SAMPLE)

    def draw(tokens: Sequence[int]) -> int:
        """A token drawn from p: the sample of q wherever the rule keeps it."""
        rows, position = (p(tokens)[None], q(tokens)[None]), torch.tensor([len(tokens)])
        return int(accept_or_resample(*rows, sample(tokens), seeds, position))

    tokens, seeds = list(prompt), torch.tensor([seed])
    while len(tokens) < len(prompt) + max_tokens:
        drafted = list(tokens)
        for _ in range(draft_length):  # draft: K small passes
            drafted.append(int(sample(drafted)))
        draft_tokens = drafted[len(tokens) :]
        # verify: one large pass over K + 1 positions
        drawn = [draw(drafted[: len(tokens) + i]) for i in range(draft_length + 1)]
        tokens += drawn[: num_accepted(draft_tokens, drawn) + 1]  # accept
    return tokens[len(prompt) : len(prompt) + max_tokens]
