"""Sampled answers have the formula's distribution, with and without drafts.

The tests look at martingale differences: for a function f of a token, f(x) - E f under the oracle's
distribution after the sampled tokens. Their sum over its standard deviation is a z-value. f is log p, and
eight functions that are +1 or -1 by a fixed draw for each token.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from vllm_tests.engines import V2, Task, ask, engine, metrics
from vllm_tests.oracle import Mix
from vllm_tests.test_speculation import plain_base, speculating

__all__ = ["plain_base"]  # the fixture

SAMPLES, TOKENS = 80 if V2 else 400, 3  # Triton's interpreter is slow
PROMPT = (1, 17, 230, 44, 9)
MIXES = [
    (Mix({"one": 1.0}), {"mixture": "one=1"}),
    (Mix({"two": 0.6, "three": 0.6}), {"mixture": "two=0.6,three=0.6"}),
    (Mix({"one": lambda p: 1.2 * min(p / 2, 1)}, 1.2, 0.8), {
        "mixture": "one=0..1.2/2", "upscale_strength": 1.2, "upscale_top_p": 0.8,
    }),
]  # fmt: skip
SIGNS = torch.randint(0, 2, (8, 512), generator=torch.Generator().manual_seed(5)) * 2.0 - 1


def z_values(oracle, answers: list[list[int]], mix: Mix, temperature: float) -> list[float]:
    """A z-value for each function of a token."""
    sums, variances = torch.zeros(9), torch.zeros(9)
    for answer in answers:
        for position, token in enumerate(answer):
            log_p = oracle.log_p(PROMPT, answer[:position], mix)
            log_p = (log_p / temperature).log_softmax(-1)
            p = log_p.exp()
            functions = torch.stack([log_p.nan_to_num(neginf=0.0), *SIGNS])
            means = functions @ p
            sums += functions[:, token] - means
            variances += (functions - means[:, None]).square() @ p
    return (sums / variances.sqrt()).tolist()


def chi_squared_p_value(oracle, answers: list[list[int]], mix: Mix, temperature: float) -> float:
    """The p-value of the first tokens, in six classes of nearly equal probability."""
    p = (oracle.log_p(PROMPT, (), mix).double() / temperature).softmax(-1)
    ordered = p.argsort(descending=True)
    middle = p[ordered].cumsum(0) - p[ordered] / 2
    classes = torch.zeros(len(p), dtype=torch.long).index_copy(0, ordered, (6 * middle).long().clamp(max=5))
    expected = len(answers) * torch.zeros(6, dtype=torch.double).index_add(0, classes, p)
    observed = torch.bincount(classes[[answer[0] for answer in answers]], minlength=6)
    filled = expected > 0  # a token of large probability fills more than one
    assert filled.sum() >= 4
    assert expected[filled].min() > 3
    return float(stats.chisquare(observed[filled], expected[filled]).pvalue)


def require_distribution(llm, oracle, temperature: float) -> None:
    tasks = [Task(PROMPT, mix, xargs, TOKENS) for mix, xargs in MIXES]
    completions = ask(llm, tasks, temperature=temperature, n=SAMPLES, seed=11, logprobs=None)
    answers = [[list(c.token_ids) for c in task_completions] for task_completions in completions]
    for (mix, _), texts in zip(MIXES, answers, strict=True):
        assert max(map(abs, z_values(oracle, texts, mix, temperature))) < 4
        assert chi_squared_p_value(oracle, texts, mix, temperature) > 1e-4
    # The same answers are not those of the base alone.
    assert max(map(abs, z_values(oracle, answers[0], Mix(), temperature))) > 6


def test_samples_follow_the_formula(oracle, family):
    with engine(family, max_num_seqs=128) as llm:
        require_distribution(llm, oracle, temperature=0.7)


@pytest.mark.skipif(not V2, reason="runner V1 cannot mix and speculate")
@pytest.mark.parametrize("how", ["greedy", "probabilistic"])
def test_samples_with_drafts_follow_the_formula(oracle, family, plain_base, how):
    config = speculating(plain_base) | {"draft_sample_method": how}
    with engine(family, speculative_config=config, max_num_seqs=128) as llm:
        require_distribution(llm, oracle, temperature=0.7)
        assert metrics(llm)["spec_decode_num_accepted_tokens"] > 20


def test_a_seed_gives_the_same_answer_and_n_gives_others(family):
    task = Task(PROMPT, *MIXES[0], tokens=8)
    with engine(family) as llm:
        first, again = (ask(llm, [task], temperature=1.0, n=3, seed=5, logprobs=None)[0] for _ in "12")
        other = ask(llm, [task], temperature=1.0, n=3, seed=6, logprobs=None)[0]

    texts = [[tuple(c.token_ids) for c in completions] for completions in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 3
    assert math.prod(map(len, texts[0])) == 8**3
