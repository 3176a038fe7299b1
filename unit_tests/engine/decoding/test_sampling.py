"""Penalties, filters and random numbers, against their definitions."""

import pytest
import torch
from scipy import stats

from langchain_eft.engine.decoding.penalties import Penalties, penalize
from langchain_eft.engine.decoding.random import philox4x32, uniforms
from langchain_eft.engine.decoding.sampling import Sampling, draw, probabilities
from langchain_eft.engine.request import SamplingParams

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, -2.0]])


def of(params) -> Sampling:
    return Sampling.of(params, [1] * len(params), LOGITS.device)


def penalized(params, prompt, output) -> torch.Tensor:
    """LOGITS after a prompt and an answer."""
    counts, prompt_counts = (
        torch.bincount(torch.tensor(tokens, dtype=torch.int64), minlength=5)[None].float()
        for tokens in (output, prompt)
    )
    strengths = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
    seen = counts + prompt_counts > 0
    return penalize(LOGITS, Penalties(counts, seen, *torch.tensor(strengths)[:, None]))[0]


def one(**params) -> torch.Tensor:
    return probabilities(LOGITS, of([SamplingParams(**params)]))[0]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_test_vectors(counter, key, expected):
    assert tuple(philox4x32(torch.tensor(counter), torch.tensor(key)).tolist()) == expected


def test_random_numbers_are_uniform_over_positions_seeds_and_indexes():
    n = 20_000
    count, fixed = torch.arange(n), torch.full((n,), 7)
    several = [uniforms(fixed, count, 0, 1), uniforms(count, fixed, 0, 1), uniforms(fixed, count, 1, 1)]
    several.append(uniforms(fixed[:1], count[:1], 0, n))
    for numbers in (each.flatten() for pair in several for each in pair):
        assert len(numbers) == n
        assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-3
        assert float(numbers.min()) >= 0
        assert float(numbers.max()) < 1


def test_random_numbers_of_one_seed_position_and_purpose_never_change():
    pair = torch.tensor([5, 2**62]), torch.tensor([3, 2**40])
    first = torch.stack(uniforms(*pair, 0, 9))
    assert torch.equal(torch.stack(uniforms(*pair, 0, 30))[..., :9], first)
    assert not torch.isin(torch.stack(uniforms(*pair, 1, 9)), first).any()
    assert len(first.unique()) == first.numel()


def test_temperature_scales_logits():
    torch.testing.assert_close(one(temperature=0.5), (LOGITS[0] / 0.5).double().softmax(-1))


def test_top_k_keeps_k():
    for k in range(1, 6):
        assert int((one(top_k=k) > 0).sum()) == k
    assert int((one(top_k=50) > 0).sum()) == 5


def test_top_p_keeps_the_nucleus():
    full = LOGITS[0].double().softmax(-1)
    kept = one(top_p=0.7) > 0
    assert full[kept].sum() >= 0.7
    assert full[kept][:-1].sum() < 0.7


def test_min_p_is_relative_to_the_most_probable():
    full = LOGITS[0].double().softmax(-1)
    assert (one(min_p=0.1) > 0).tolist() == (full >= 0.1 * full.max()).tolist()


def test_rows_with_different_filters_do_not_affect_each_other():
    several = [
        SamplingParams(top_k=2),
        SamplingParams(top_p=0.5),
        SamplingParams(min_p=0.5, temperature=3.0),
        SamplingParams(),
        SamplingParams(temperature=0),
    ]
    together = probabilities(LOGITS.expand(5, -1), of(several))
    for row, params in zip(together, several, strict=True):
        torch.testing.assert_close(row, probabilities(LOGITS, of([params]))[0])


def test_repetition_penalty_acts_on_prompt_and_answer():
    params = SamplingParams(repetition_penalty=2.0)
    actual = penalized(params, [0], [3])
    expected = LOGITS[0].log_softmax(-1)
    expected[[0, 3]] *= 2.0
    torch.testing.assert_close(actual, expected)


def test_frequency_and_presence_penalties_act_on_the_answer_alone():
    params = SamplingParams(frequency_penalty=0.5, presence_penalty=0.25)
    actual = penalized(params, [0, 0], [1, 1, 2])
    expected = LOGITS[0].log_softmax(-1)
    expected[1] -= 2 * 0.5 + 0.25
    expected[2] -= 0.5 + 0.25
    torch.testing.assert_close(actual, expected)


def test_draws_follow_the_filtered_distribution():
    n = 8_000
    sampling = of([SamplingParams(temperature=1.3, top_k=4, seed=s) for s in range(n)])
    counts = torch.bincount(draw(LOGITS.expand(n, -1), sampling).tokens, minlength=5)
    expected = one(temperature=1.3, top_k=4) * n
    assert counts[4] == 0
    assert stats.chisquare(counts[:4].numpy(), expected[:4].numpy()).pvalue > 1e-3
