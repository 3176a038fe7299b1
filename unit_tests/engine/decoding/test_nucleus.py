"""The nucleus, against a loop over sorted tokens."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_eft.engine.decoding.nucleus import nucleus


def by_loop(logits, top_p):
    """The tokens of a nucleus: the most probable one, then the next, until `top_p` is reached; and ties."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    weights = [math.exp(logits[token] - logits[order[0]]) for token in order]
    kept, reached = set(), 0.0
    for token, weight in zip(order, weights, strict=True):
        if reached >= top_p * math.fsum(weights):
            break
        kept.add(token)
        reached += weight
    return {token for token, logit in enumerate(logits) if logit >= min(logits[each] for each in kept)}


def kept(logits, top_p):
    return set(nucleus(torch.tensor([logits]), torch.tensor([top_p]))[0].nonzero()[:, 0].tolist())


@given(
    st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=40),
    st.integers(1, 63).map(lambda n: n / 64),
)
def test_nucleus_is_that_of_a_loop_over_sorted_tokens(logits, top_p):
    """Many logits are equal: those are kept together."""
    assert kept(logits, top_p) == by_loop(logits, top_p)


@pytest.mark.parametrize("spread", [0.1, 3.0, 9.0])
def test_the_nucleus_of_a_large_vocabulary_is_that_of_a_full_sort(spread):
    torch.manual_seed(0)
    logits = torch.randn(4, 5000) * spread
    top_p = torch.tensor([0.05, 0.5, 0.9, 1.0])
    for row, p, inside in zip(logits, top_p, nucleus(logits, top_p), strict=True):
        ordered = row.double().softmax(-1).sort(descending=True).values
        size = 5000 if p == 1 else int((ordered.cumsum(-1) < p).sum()) + 1
        assert int(inside.sum()) == size
        assert row[inside].min() >= row[~inside].max() if size < 5000 else True


def test_nucleus_is_the_smallest_set_that_reaches_top_p():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log() + 7  # a constant changes nothing
    for top_p, size in ((0.01, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (1.0, 4)):
        assert nucleus(logits, torch.tensor([top_p])).sum() == size


def test_equal_tokens_of_a_large_vocabulary_are_kept_together():
    logits = torch.zeros(2, 3000)
    logits[1, 10:] = -1.0
    logits[1, 2000] = 2.0
    inside = nucleus(logits, torch.tensor([0.25, 0.01]))
    assert inside[0].all()
    assert inside[1].nonzero()[:, 0].tolist() == [*range(10), 2000]


def test_tokens_without_probability_are_left_out_below_one():
    logits = [0.0, -math.inf, 0.0, -math.inf]
    assert kept(logits, 0.999) == {0, 2}
    assert kept(logits, 1.0) == {0, 1, 2, 3}
