"""Draws by a race: exact in distribution, and hardly changed by rounding."""

import pytest
import torch
from scipy import stats

from langchain_eft.engine.decoding.race import BLOCK, race
from langchain_eft.engine.decoding.random import SAMPLE, uniforms


def draws(weights, n, purpose=SAMPLE):
    """Tokens drawn with the seeds 0 to n - 1."""
    return race(weights.double().expand(n, -1), torch.arange(n), torch.full((n,), 3), purpose)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 5, BLOCK, 3 * BLOCK + 7])
def test_tokens_are_drawn_in_proportion_to_their_weights(size):
    generator = torch.Generator().manual_seed(size)
    weights = torch.rand(size, generator=generator) + 0.2
    counts = draws(weights, 5_000).bincount(minlength=size)
    if size > 1:
        assert stats.chisquare(counts, 5_000 * weights.double() / weights.double().sum()).pvalue > 1e-3


def test_tokens_in_one_block_or_in_two_are_drawn_alike():
    """Four tokens with weights, whatever the weights and places of the others."""
    weights = torch.zeros(2 * BLOCK)
    weights[[3, 4, BLOCK - 1, BLOCK]] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    counts = draws(weights, 5_000).bincount(minlength=2 * BLOCK)
    assert int(counts.sum()) == int(counts[weights > 0].sum())
    assert stats.chisquare(counts[weights > 0], [500, 1000, 1500, 2000]).pvalue > 1e-3


def test_a_row_without_weights_still_draws_a_token_id():
    assert draws(torch.zeros(2 * BLOCK + 5), 3).tolist() == [0, 0, 0]


@pytest.mark.slow
def test_rounding_changes_hardly_any_draw():
    """At 50,000 tokens, where draws by the cumulative sum change many times as often."""
    n, generator = 2000, torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(50_000, generator=generator, dtype=torch.float64)
    noise = 1e-4 * torch.randn(50_000, generator=generator, dtype=torch.float64)
    p, rounded = logits.softmax(-1), (logits + noise).softmax(-1)
    u = uniforms(torch.arange(n), torch.full((n,), 3), SAMPLE, 1)[0][:, 0]
    by_sum = (torch.searchsorted(p.cumsum(-1), u) != torch.searchsorted(rounded.cumsum(-1), u)).sum()
    by_race = sum(int((draws(p, 100, k) != draws(rounded, 100, k)).sum()) for k in range(n // 100))
    assert int(by_sum) > 30
    assert by_race <= 2
