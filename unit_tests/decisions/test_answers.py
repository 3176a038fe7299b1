"""Answers made of probabilities."""

import math

import pytest

from langchain_eft.decisions.answers import answer, label_scores, normalized
from langchain_eft.decisions.questions import parse_questions

NOUL = {"type": "noul", "instructions": "?"}
CHOICE = {"type": "choice", "instructions": "?", "criteria": {"a": None, "b": None, "c": None, "d": None}}
SCORE = {"type": "score", "instructions": "?", "criteria": ["low", "mid", "high"]}


def answered(question, probabilities):
    (parsed,) = parse_questions({"q": question})
    return answer(parsed, probabilities)


def test_scores_are_sums_or_means_of_log_probabilities():
    logprobs = [[-1.0, -2.0], [-4.0]]
    assert label_scores(logprobs, length_normalized=False) == [-3.0, -4.0]
    assert label_scores(logprobs, length_normalized=True) == [-1.5, -4.0]


def test_probabilities_add_up_to_one_however_small_the_scores():
    assert normalized([math.log(3), math.log(1)]) == pytest.approx([0.75, 0.25])
    assert normalized([-5000.0, -5000.0 + math.log(3)]) == pytest.approx([0.25, 0.75])
    assert sum(normalized([-0.1 * i for i in range(100)])) == pytest.approx(1, abs=1e-12)


def test_a_noul_is_the_probability_of_yes():
    assert answered(NOUL, [0.75, 0.25]) == {"type": "noul", "noul": 0.75}


def test_a_choice_has_the_most_probable_label_and_all_probabilities():
    given = answered(CHOICE, [0.1, 0.7, 0.1, 0.1])
    assert given["choice"] == "b"
    assert given["probabilities"] == {"a": 0.1, "b": 0.7, "c": 0.1, "d": 0.1}
    assert given["confidence"] == pytest.approx((0.7 - 0.25) / 0.75)
    assert answered(CHOICE, [0.25] * 4)["confidence"] == 0
    assert answered(CHOICE, [0, 0, 1, 0])["confidence"] == 1
    assert answered({**CHOICE, "criteria": {"only": None}}, [1.0])["confidence"] == 1


def test_a_score_is_the_expected_level():
    given = answered(SCORE, [0.1, 0.2, 0.7])
    assert given["score"] == pytest.approx(0.2 + 1.4)
    assert given["legend"] == {0: "low", 1: "mid", 2: "high"}
    assert given["probabilities"] == {0: 0.1, 1: 0.2, 2: 0.7}
    assert given["confidence"] == pytest.approx(1 - (0.1 * 2 + 0.2) / (2 / 3))
    assert answered(SCORE, [0, 0, 1])["confidence"] == 1
    assert answered(SCORE, [0.5, 0, 0.5])["confidence"] == 0
