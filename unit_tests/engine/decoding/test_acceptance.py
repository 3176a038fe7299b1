"""The acceptance rule and the loop that defines speculative decoding."""

from collections import Counter
from itertools import product

import pytest
import torch
from scipy import stats

from langchain_eft.engine.decoding.acceptance import accept_or_resample, num_accepted, speculative_decode
from langchain_eft.engine.decoding.race import race
from langchain_eft.engine.decoding.random import RESIDUAL, SAMPLE, TEST, uniforms
from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.request import SamplingParams
from unit_tests.helpers import full, request

PROMPT = [7, 30, 9, 61, 61, 12]


# The rule


def random_distributions(n, size, seed):
    """One p and one q, each with an impossible token, and n samples of q."""
    generator = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(size, generator=generator).mul(2).softmax(-1).double() for _ in range(2))
    p[0] = q[size - 1] = 0
    p, q = p / p.sum(), q / q.sum()
    samples = torch.multinomial(q, n, replacement=True, generator=generator)
    return p, q, samples


@pytest.mark.parametrize("size", [4, 6, 16])
@pytest.mark.parametrize("seed", range(3))
def test_resampled_tokens_follow_p_and_keep_as_many_samples_as_possible(size, seed):
    n = 20_000
    p, q, samples = random_distributions(n, size, seed)
    seeds, positions = torch.arange(n), torch.full((n,), 5)
    tokens = accept_or_resample(p.expand(n, -1), q.expand(n, -1), samples, seeds, positions)
    counts = tokens.bincount(minlength=size).double()
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], n * p[1:]).pvalue > 1e-4
    num_kept = int((tokens == samples).sum())
    overlap = float(torch.minimum(p, q).sum())
    assert stats.binomtest(num_kept, n, overlap).pvalue > 1e-4


def test_equal_distributions_keep_every_sample():
    n = 1000
    p, _, _ = random_distributions(n, 9, 0)
    samples = torch.multinomial(p, n, replacement=True)
    rows = p.expand(n, -1)
    assert torch.equal(accept_or_resample(rows, rows, samples, torch.arange(n), torch.arange(n)), samples)


@pytest.mark.parametrize(
    ("draft_tokens", "tokens", "expected"),
    [
        ([], [4], 0),
        ([4], [4, 5], 1),
        ([4], [3, 5], 0),
        ([4, 5, 6], [4, 5, 6, 7], 3),
        ([4, 5, 6], [4, 9, 6, 7], 1),
    ],
)
def test_draft_tokens_are_accepted_up_to_the_first_that_differs(draft_tokens, tokens, expected):
    assert num_accepted(draft_tokens, tokens) == expected


# The loop


def bigram(seed, size=5, spread=1.5):
    """A distribution that depends on the last token and on the number of tokens."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(2, size, size, generator=generator, dtype=torch.float64).mul(spread).softmax(-1)
    return lambda tokens: table[len(tokens) % 2, tokens[-1]]


P, Q = bigram(0), bigram(1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_the_answer_does_not_depend_on_the_draft_length(seed):
    plain = speculative_decode(P, Q, [2], 40, 0, seed)
    assert len(plain) == 40
    for draft_length in (1, 2, 3, 7):
        assert speculative_decode(P, Q, [2], 40, draft_length, seed) == plain


def test_different_seeds_give_different_answers():
    assert len({tuple(speculative_decode(P, Q, [2], 40, 2, seed)) for seed in range(5)}) == 5


@pytest.mark.slow
@pytest.mark.parametrize("q", [bigram(2, 3), lambda _: torch.tensor([0, 0, 1.0], dtype=torch.float64)])
def test_tokens_follow_the_distribution_of_p_for_any_q(q):
    """Chi-squared over all answers of two tokens, of which the first is a verified draft token."""
    n, p = 400, bigram(3, 3, spread=0.8)
    answers = Counter(tuple(speculative_decode(p, q, [2], 2, 1, seed)) for seed in range(n))
    pairs = list(product(range(3), repeat=2))
    predicted = [n * float(p([2])[first] * p([2, first])[second]) for first, second in pairs]
    assert min(predicted) >= 5
    assert stats.chisquare([answers[pair] for pair in pairs], predicted).pvalue > 1e-4


# The engine against the loop


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [("one", 3), ("two", 4), ("full", 3), *full(("one", 4), ("two", 3), ("full", 4))]
)
def test_the_engines_sampled_answers_are_the_loops(engine, reference, case):
    """With one behavior at weight 1, the engine's q is the distribution of the tuned model."""
    (name, seed), temperature, num_tokens = case, 0.9, 12

    def p(tokens):
        return (reference.logprobs(tokens, {name: 1.0}) / temperature).softmax(-1)

    @torch.inference_mode()
    def q(tokens):
        logits = reference.small[name](torch.tensor([list(tokens)])).logits[0, -1]
        return (logits.double() / temperature).softmax(-1)

    expected = speculative_decode(p, q, PROMPT, num_tokens, 3, seed)
    if 0 in expected:  # the engine stops at an end token, the loop does not
        expected = expected[: expected.index(0) + 1]
    for draft_length in ("off", 1, 4, "auto"):
        sampling = SamplingParams(temperature=temperature, seed=seed)
        one = request(PROMPT, {name: 1.0}, sampling, num_tokens, speculation=draft_length)
        deltas = [event for event in engine.stream(one) if isinstance(event, TextDelta)]
        assert [token for delta in deltas for token in delta.tokens] == expected


def test_rows_of_a_large_vocabulary_are_resampled_alone_with_the_same_result():
    """There the host looks which rows need it."""
    torch.manual_seed(0)
    rows, size = 200, 1500
    p, q = (torch.randn(rows, size, dtype=torch.float64).softmax(-1) for _ in range(2))
    q[:20] = p[:20]
    seeds, positions = torch.arange(rows), torch.arange(rows) % 7
    samples = race(q, seeds, positions, SAMPLE)
    tokens = accept_or_resample(p, q, samples, seeds, positions)
    p_sample, q_sample = (x.gather(1, samples[:, None])[:, 0] for x in (p, q))
    kept = uniforms(seeds, positions, TEST, 1)[0][:, 0] * q_sample < p_sample
    assert torch.equal(tokens[kept], samples[kept])
    assert kept[:20].all()
    drawn = race((p - q).clamp(min=0), seeds, positions, RESIDUAL)
    assert 0 < int((~kept).sum()) < rows
    assert torch.equal(tokens[~kept], drawn[~kept])
