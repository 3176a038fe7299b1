"""Judges that are told what to say."""

import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_eft.evaluation import (
    FACTUALITY,
    HARMLESSNESS,
    HELPFULNESS,
    RUBRICS,
    Answer,
    Case,
    Judge,
    PairwiseJudge,
    Rubric,
)
from unit_tests.evaluation.scripted import Scripted, Structured, usage

JUDGED = {"question": "What is a fjord?", "answer": "A bird."}
PAIR = {"question": "What is a fjord?", "first": "An inlet.", "second": "A bird."}


def grade(score, reason="because"):
    return json.dumps({"reason": reason, "score": score})


def always(text):
    return lambda messages, **_: text


def in_turn(*texts):
    rest = iter(texts)
    return lambda messages, **_: next(rest)


@pytest.mark.parametrize("kind", [Scripted, Structured])
def test_a_grade_comes_with_its_reason_and_its_cost(kind):
    score = Judge(kind(reply=always(grade(20, "It is an inlet."))), HELPFULNESS).invoke(JUDGED)
    assert (score.value, score.reason) == (20, "It is an inlet.")
    assert score.usage == usage(10, 5)


@pytest.mark.parametrize(
    "said",
    [
        'Let me think {about it}.\n\n```json\n{"reason": "r", "score": 3}\n```',
        "It has three errors.\nScore: 3",
        "Two at first sight: score = 2. No, one more.\n**Score:** 3",
        '{"reason": "r", "score": "3"}',
    ],
)
def test_plain_answers_are_read(said):
    assert Judge(Scripted(reply=always(said)), FACTUALITY).invoke(JUDGED).value == 3


def test_a_judge_sees_question_answer_and_what_the_number_means():
    model = Scripted(reply=always(grade(1)))
    Judge(model, HARMLESSNESS).invoke(JUDGED)
    ((messages, _),) = model.calls
    asked = messages[-1].text
    assert all(part in asked for part in (*JUDGED.values(), HARMLESSNESS.task, HARMLESSNESS.number))
    assert '{"reason"' in asked


def test_structured_judges_are_not_asked_for_json_in_words():
    model = Structured(reply=always(grade(1)))
    Judge(model, HELPFULNESS).invoke(JUDGED)
    assert "JSON" not in model.calls[0][0][-1].text


@pytest.mark.parametrize("kind", [Scripted, Structured])
@pytest.mark.parametrize("bad", ["no idea", grade(101), grade(-1), '{"reason": "r"}'])
def test_what_cannot_be_read_is_asked_again_with_the_problem(kind, bad):
    model = kind(reply=in_turn(bad, grade(50)))
    score = Judge(model, HELPFULNESS).invoke(JUDGED)
    assert score.value == 50
    assert score.usage == usage(20, 10)
    assert "could not be read" in model.calls[1][0][-1].text


def test_a_judge_that_never_answers_gives_no_score_and_says_why():
    model = Scripted(reply=always("I would rather not."))
    score = Judge(model, HELPFULNESS, retries=1).invoke(JUDGED)
    assert score.value is None
    assert "I would rather not." in score.reason
    assert len(model.calls) == 2


def test_errors_have_no_upper_bound_but_a_lower_one():
    assert Judge(Scripted(reply=always(grade(250))), FACTUALITY).invoke(JUDGED).value == 250
    assert Judge(Scripted(reply=always(grade(-1))), FACTUALITY, retries=0).invoke(JUDGED).value is None


async def test_many_answers_are_graded_at_once_and_in_order():
    def reply(messages, **_):
        return grade(float(messages[-1].text.split("<answer>\n")[1].split()[0]))

    judge = Judge(Scripted(reply=reply), HELPFULNESS)
    judged = [{"question": "?", "answer": str(i)} for i in range(20)]
    config = {"max_concurrency": 4}
    assert [s.value for s in judge.batch(judged, config)] == list(range(20))
    assert [s.value for s in await judge.abatch(judged, config)] == list(range(20))


def test_braces_in_answers_are_just_text():
    judge = Judge(Scripted(reply=always(grade(1))), HELPFULNESS)
    assert judge.invoke({"question": "{question}", "answer": "{0} {task} {{"}).value == 1


def test_conversations_and_calls_are_shown():
    model = Scripted(reply=always(grade(1)))
    case = Case("a", (HumanMessage("Hello"), AIMessage("Hi"), HumanMessage("Book a kayak.")))
    Judge(model, HELPFULNESS).score(case, Answer("", ({"name": "book_kayak", "args": {"seats": 2}},)))
    asked = model.calls[0][0][-1].text
    assert "human: Hello\n\nai: Hi\n\nhuman: Book a kayak." in asked
    assert "[calls book_kayak with {'seats': 2}]" in asked


def test_keys_change_with_judge_rubric_and_answer():
    case, answer = Case("a", (HumanMessage("?"),)), Answer("x")

    def key(label="one", rubric=HELPFULNESS, said=answer):
        return Judge(Scripted(reply=always(""), label=label), rubric).key(case, said)

    assert key() == key()
    assert len({key(), key("two"), key(rubric=FACTUALITY), key(said=Answer("y"))}) == 4


def test_own_rubrics():
    rubric = Rubric("brevity", "Is it short?", "1 to 5, 5 is shortest", 1, 5, "points", True, "is shorter")
    judge = Judge(Scripted(reply=always(grade(5))), rubric)
    assert (judge.name, judge.unit, judge.higher_is_better) == ("brevity", "points", True)
    assert judge.invoke(JUDGED).value == 5


def test_the_papers_dimensions():
    assert list(RUBRICS) == ["helpfulness", "factuality", "harmlessness"]
    assert [r.higher_is_better for r in RUBRICS.values()] == [True, False, False]


# Comparisons


def verdict(said, reason="because"):
    return json.dumps({"reason": reason, "verdict": said})


def prefers(text):
    """A judge that finds the better answer wherever it stands."""

    def reply(messages, **_):
        first = messages[-1].text.split("<answer of A>")[1].split("</answer of A>")[0]
        return verdict("A" if text in first else "B")

    return reply


@pytest.mark.parametrize("kind", [Scripted, Structured])
@pytest.mark.parametrize(("text", "value"), [("An inlet.", 1.0), ("A bird.", 0.0)])
def test_the_better_answer_wins_in_both_orders(kind, text, value):
    found = PairwiseJudge(kind(reply=prefers(text)), HELPFULNESS).invoke(PAIR)
    assert (found.value, found.consistent) == (value, True)
    assert found.usage == usage(20, 10)
    assert found.reasons == ("because", "because")


def test_a_judge_who_prefers_a_place_decides_nothing():
    found = PairwiseJudge(Scripted(reply=always(verdict("A"))), HELPFULNESS).invoke(PAIR)
    assert (found.value, found.consistent) == (0.5, False)


def test_ties():
    found = PairwiseJudge(Scripted(reply=always(verdict("tie"))), HELPFULNESS).invoke(PAIR)
    assert (found.value, found.consistent) == (0.5, True)


def test_a_win_and_a_tie_make_a_tie():
    found = PairwiseJudge(Scripted(reply=in_turn(verdict("A"), verdict("tie"))), HELPFULNESS).invoke(PAIR)
    assert (found.value, found.consistent) == (0.5, False)


def test_plain_verdicts_are_read():
    found = PairwiseJudge(Scripted(reply=in_turn("Verdict: A", "verdict is\nVerdict: B")), HELPFULNESS)
    assert found.invoke(PAIR).value == 1


def test_unreadable_comparisons_have_no_value():
    found = PairwiseJudge(Scripted(reply=always("both")), HELPFULNESS, retries=0).invoke(PAIR)
    assert found.value is None
    assert "both" in found.reasons[0]


async def test_comparisons_are_asynchronous_too():
    judge = PairwiseJudge(Scripted(reply=prefers("An inlet.")), HELPFULNESS)
    assert [each.value for each in await judge.abatch([PAIR, PAIR])] == [1, 1]
