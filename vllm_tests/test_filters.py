"""Penalties, biases and allowed tokens act on the sum of all models."""

from __future__ import annotations

import pytest

from vllm_tests.engines import Task, ask, engine
from vllm_tests.oracle import Mix

PROMPT = (1, 17, 230, 44, 9, 17)
TASK = Task(PROMPT, Mix({"one": 0.5, "wide": 0.3}), {"mixture": "one=0.5,wide=0.3"}, tokens=10)


@pytest.fixture(scope="module")
def llm(family):
    with engine(family) as running:
        yield running


def presence(log_p, answer):
    log_p[list(set(answer))] -= 1.5
    return log_p


def frequency(log_p, answer):
    for token in answer:
        log_p[token] -= 0.8
    return log_p


def bias(log_p, answer):
    log_p[100] += 4
    log_p[200] += 3.5
    return log_p


def allowed(log_p, answer):
    kept = log_p[10:20].clone()
    log_p[:] = -float("inf")
    log_p[10:20] = kept
    return log_p


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"presence_penalty": 1.5}, presence),
        ({"frequency_penalty": 0.8}, frequency),
        ({"logit_bias": {100: 4, 200: 3.5}}, bias),
        ({"allowed_token_ids": list(range(10, 20))}, allowed),
    ],
)
def test_a_filter_changes_the_sum(llm, oracle, settings, change):
    answer = []
    for _ in range(TASK.tokens):
        answer.append(int(change(oracle.log_p(PROMPT, answer, TASK.mix), answer).argmax()))

    ((completion,),) = ask(llm, [TASK], **settings)

    assert list(completion.token_ids) == answer
    assert answer != oracle.greedy(PROMPT, TASK.mix, TASK.tokens)[0]


def test_answers_end_at_the_end_tokens_of_the_small_models(llm, oracle):
    """Id 7 ends answers by the section alone; a bias makes it the third token."""
    ((completion,),) = ask(llm, [TASK], ignore_eos=False, logit_bias={7: 100.0})

    assert list(completion.token_ids) == [7]
    assert completion.finish_reason == "stop"


def test_ids_with_other_meanings_are_never_generated(llm):
    ((completion,),) = ask(llm, [TASK], logit_bias={500: 100.0, 501: 100.0, 502: 100.0})

    assert not {500, 501, 502} & set(completion.token_ids)
