"""Penalties, biases and allowed tokens act on the sum of all models."""

from __future__ import annotations

import pytest
import torch

from vllm_tests.engines import Task, ask, engine
from vllm_tests.oracle import Mix

PROMPT = (1, 17, 230, 44, 9, 17)
TASK = Task(PROMPT, Mix({"one": 0.5, "wide": 0.3}), {"mixture": "one=0.5,wide=0.3"}, tokens=10)


@pytest.fixture(scope="module")
def llm(family):
    with engine(family) as running:
        yield running


BIAS = dict.fromkeys(range(100, 112), 30.0)
"""Biases that leave a dozen tokens to choose from, so that some come again."""


def biased(log_p, answer):
    log_p[list(BIAS)] += torch.tensor(list(BIAS.values()))
    return log_p


def present(log_p, answer):
    log_p[list(set(answer))] -= 1.5
    return biased(log_p, answer)


def frequent(log_p, answer):
    return biased(log_p - 0.8 * torch.bincount(torch.tensor(answer, dtype=torch.long), minlength=512), answer)


def allowed(log_p, answer):
    return torch.full_like(log_p, -torch.inf).index_copy(0, torch.arange(10, 20), log_p[10:20])


def expected(oracle, change) -> list[int]:
    answer = []
    for _ in range(TASK.tokens):
        answer.append(int(change(oracle.log_p(PROMPT, answer, TASK.mix), answer).argmax()))
    return answer


@pytest.mark.parametrize(
    ("settings", "change", "without"),
    [
        ({"logit_bias": BIAS}, biased, lambda log_p, answer: log_p),
        ({"logit_bias": BIAS, "presence_penalty": 1.5}, present, biased),
        ({"logit_bias": BIAS, "frequency_penalty": 0.8}, frequent, biased),
        ({"allowed_token_ids": list(range(10, 20))}, allowed, lambda log_p, answer: log_p),
    ],
)
def test_a_filter_changes_the_sum(llm, oracle, settings, change, without):
    ((completion,),) = ask(llm, [TASK], **settings)

    assert list(completion.token_ids) == expected(oracle, change) != expected(oracle, without)


def test_answers_end_at_the_end_tokens_of_the_small_models(llm, oracle):
    """Id 7 ends answers by the section alone; a bias makes it the third token."""
    ((completion,),) = ask(llm, [TASK], ignore_eos=False, logit_bias={7: 100.0})

    assert list(completion.token_ids) == [7]
    assert completion.finish_reason == "stop"


def test_ids_with_other_meanings_are_never_generated(llm):
    ((completion,),) = ask(llm, [TASK], logit_bias={500: 100.0, 501: 100.0, 502: 100.0})

    assert not {500, 501, 502} & set(completion.token_ids)
