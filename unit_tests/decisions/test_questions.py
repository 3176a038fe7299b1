"""Questions: what is asked in which words, and which questions are refused."""

import pytest
from langchain_core.messages import HumanMessage

from langchain_eft.decisions.questions import MOST_LABELS, parse_questions
from langchain_eft.engine.errors import RequestError

decisions = pytest.importorskip("langchain_core.decisions", reason="langchain-core 1.8 has decision models")


def parse(question, **kwargs):
    (parsed,) = parse_questions({"q": question}, **kwargs)
    return parsed


def test_a_noul_is_answered_by_yes_or_no():
    bare = parse(decisions.Noul(instructions="Is it late?"))
    assert (bare.kind, bare.labels) == ("noul", ("Yes", "No"))
    assert bare.prompt("12 o'clock") == "12 o'clock\n\nIs it late?\nAnswer Yes or No only."
    criteria = decisions.NoulCriteria(true="after 10", false={"before": 10})
    told = parse(decisions.Noul(instructions="Late?", criteria=criteria))
    assert 'Late?\nYes: after 10\nNo: {"before": 10}\nAnswer' in told.prompt("x")


def test_a_choice_is_answered_by_its_labels():
    choice = parse(decisions.Choice(instructions="Team?", criteria={"billing": "money", "bugs": None}))
    assert choice.labels == ("billing", "bugs")
    assert "Team?\n- billing: money\n- bugs\nAnswer with one of these options" in choice.prompt("x")


def test_a_score_is_answered_by_the_number_of_a_level():
    score = parse(decisions.Score(instructions={"ask": "How?"}, criteria=["low", {"like": "mid"}, "high"]))
    assert score.labels == ("0", "1", "2")
    assert score.criteria == ("low", {"like": "mid"}, "high")
    assert '{"ask": "How?"}\n0: low\n1: {"like": "mid"}\n2: high\nAnswer' in score.prompt("x")


def test_dictionaries_are_questions_too():
    given = {"type": "noul", "instructions": "Is it late?", "criteria": None}
    assert parse(given) == parse(decisions.Noul(instructions="Is it late?"))
    assert parse({"type": "choice", "criteria": {"a": None}}).prompt("x").startswith("x\n\n- a\n")


def test_the_state_comes_first():
    questions = [decisions.Noul(instructions="A?"), decisions.Choice(instructions="B?", criteria={"a": None})]
    assert all(parse(question).prompt("the state").startswith("the state\n\n") for question in questions)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (decisions.Box(instructions="the cat"), "box.*text only"),
        ({"type": "box", "instructions": "the cat"}, "box.*text only"),
        ({"type": "poll", "instructions": "?"}, "'poll'.*'choice'"),
        ({"instructions": "?"}, "type=None"),
        ("Is it late?", "Noul, Choice or Score"),
        (HumanMessage("Is it late?"), "human"),
        ({"type": "noul", "instructions": "?", "crteria": None}, "crteria.*criteria"),
        ({"type": "noul", "instructions": "?", "criteria": {"yes": "x"}}, "'true'"),
        ({"type": "noul", "instructions": "?", "criteria": ["x"]}, "'true'"),
        ({"type": "choice", "instructions": "?"}, "at least one"),
        ({"type": "choice", "instructions": "?", "criteria": {}}, "at least one"),
        ({"type": "choice", "instructions": "?", "criteria": ["a"]}, "map labels"),
        ({"type": "choice", "instructions": "?", "criteria": {"a": None, " ": None}}, "not blank"),
        ({"type": "choice", "instructions": "?", "criteria": {"": None}}, "not blank"),
        ({"type": "choice", "instructions": "?", "criteria": {3: None}}, "label is a text"),
        ({"type": "score", "instructions": "?", "criteria": ["one"]}, "at least two"),
        ({"type": "score", "instructions": "?", "criteria": "low"}, "lowest first"),
        ({"type": "choice", "criteria": dict.fromkeys(map(str, range(MOST_LABELS + 1)))}, "257"),
        ({"type": "choice", "criteria": {"x" * 10**6: None, "y": None}}, "a label of 1000000 characters"),
        ({"type": "noul", "instructions": {"type": "image", "url": "x"}}, "image"),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_answered_are_refused_by_name(question, said):
    with pytest.raises(RequestError, match=f"(?is){said}") as refusal:
        parse(question)
    assert "question 'q'" in str(refusal.value)


@pytest.mark.parametrize("questions", [{}, None, [], "Is it late?"])
def test_no_questions_are_refused(questions):
    with pytest.raises(RequestError, match="at least one"):
        parse_questions(questions)


def test_too_many_labels_in_one_call_are_refused():
    many = {"type": "choice", "instructions": "?", "criteria": dict.fromkeys(map(str, range(MOST_LABELS)))}
    with pytest.raises(RequestError, match=r"5 questions with 1280 labels.*1024.*several calls"):
        parse_questions({str(i): many for i in range(5)})
