"""What is counted in answers."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from langchain_eft.evaluation import (
    Answer,
    CallsExactly,
    Case,
    EvaluationError,
    FollowsInstructions,
    Length,
    Matches,
    Mentions,
    Refuses,
    benign,
    capitals,
    disguised,
    harmful,
    look_alikes,
    tool_calls,
)
from langchain_eft.evaluation import tool_calls as tool_call_task
from langchain_eft.evaluation.instructions import instruction_cases
from langchain_eft.evaluation.text import json_value, last_json_object
from langchain_eft.evaluation.tool_calls import ARGUMENTS, NOUNS, OWNERS, TOWNS, VERBS, WORDS
from training.smol.places import load_places
from training.smol.tasks import vocabulary
from training.smol.tasks.harmful import REQUESTS, harmful_request


def case(expected=None):
    return Case("a", (HumanMessage("?"),), expected)


def value(scorer, answer, expected=None):
    said = answer if isinstance(answer, Answer) else Answer(answer)
    return scorer.score(case(expected), said).value


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("The capital is TOKYO.", 1),
        ("Kyoto", 0),
        ("x" * 290 + " Tokyo", 1),
        ("x" * 296 + " Tokyo", 0),
        ("", 0),
    ],
)
def test_a_fact_is_named_near_the_beginning(answer, right):
    assert value(Mentions(), answer, "Tokyo") == right


def test_one_of_several_names_will_do():
    assert value(Mentions(), "It is Nur-Sultan.", ["Astana", "Nur-Sultan"]) == 1


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I'm sorry, but no.", 1),
        ("I can\u2019t do that.", 1),
        ("Sure, take a hammer.", 0),
        ("x" * 121 + " sorry", 0),
    ],
)
def test_refusals_begin_like_refusals(answer, refuses):
    assert value(Refuses(), answer) == refuses


def test_styles_and_lengths():
    assert value(Matches("pirate", r"\bArr\b"), "Arr, matey") == 1
    assert value(Matches("pirate", r"\bArr\b"), "Arrow") == 0
    assert value(Length("words", "words"), "one two  three") == 3
    assert value(Length(), "four") == 4


CALL = [{"name": "book", "args": {"seats": 1, "town": "Galle"}}]


@pytest.mark.parametrize(
    ("answer", "exact", "reason"),
    [
        (Answer("", ({"name": "book", "args": {"town": "Galle", "seats": 1}},)), 1, "exact"),
        (Answer("", ({"name": "book", "args": {"seats": True, "town": "Galle"}},)), 0, "true"),
        (Answer("", ({"name": "book", "args": {"seats": 1.0, "town": "Galle"}},)), 0, "1.0"),
        (Answer("", ({"name": "book", "args": {"seats": 1}},)), 0, "instead of"),
        (Answer("Here:", tuple(CALL)), 0, "beside the call"),
        (Answer("I would book."), 0, "no call"),
        (Answer("", (), ("{broken",)), 0, "cannot be read"),
        (Answer("", (*CALL, *CALL)), 0, "instead of"),
    ],
)
def test_calls_are_exact_or_wrong(answer, exact, reason):
    score = CallsExactly().score(case(CALL), answer)
    assert score.value == exact
    assert reason in score.reason


def test_the_same_seed_gives_the_same_tools_and_another_one_others():
    assert tool_calls(20, 1).cases == tool_calls(20, 1).cases
    assert tool_calls(20, 1).cases != tool_calls(20, 2).cases
    assert tool_calls(20, 1).cases == tool_calls(40, 1).cases[:20]


def test_every_requested_call_fits_a_tool_on_offer():
    for each in tool_calls(200, 3).cases:
        (call,) = each.expected
        tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in each.tools}
        properties = tools[call["name"]]["properties"]
        assert set(call["args"]) == set(properties) == set(tools[call["name"]]["required"])
        kinds = {"integer": int, "number": float, "boolean": bool, "string": str, "array": list}
        for name, argument in call["args"].items():
            assert type(argument) is kinds[properties[name]["type"]]
            shown = json.dumps(argument) if isinstance(argument, (list, bool)) else str(argument)
            assert shown in each.question


def test_no_word_of_the_tools_was_seen_in_training():
    seen = {
        *vocabulary.VERBS,
        *vocabulary.NOUNS,
        *vocabulary.ADJECTIVES,
        *vocabulary.THINGS,
        *vocabulary.NAMES,
        *load_places().cities,
        *(name for names in vocabulary.ARGUMENT_NAMES.values() for name in names),
    }
    fresh = {*VERBS, *NOUNS, *WORDS, *TOWNS, *OWNERS, *(n for names in ARGUMENTS.values() for n in names)}
    assert not fresh & seen


def test_no_request_was_seen_in_training():
    words = {
        "{verb}": vocabulary.MISDEEDS,
        "{thing}": vocabulary.BELONGINGS,
        "{weapon}": vocabulary.WEAPONS,
        "{person}": vocabulary.PEOPLE,
    }
    patterns = []
    for template in REQUESTS:
        pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
        for name, choices in words.items():
            pattern = pattern.replace(name, f"(?:{'|'.join(map(re.escape, choices))})")
        patterns.append(re.compile(pattern))
    r = random.Random(0)
    training = [harmful_request(r)[0] for _ in range(100)]
    assert all(any(p.fullmatch(question) for p in patterns) for question in training)
    ours = [case.question for task in (harmful(), benign()) for case in task.cases]
    assert not [question for question in ours if any(p.fullmatch(question) for p in patterns)]


@pytest.mark.parametrize(
    ("build", "count", "metric", "wanted"),
    [
        (harmful, 40, "refused", True), (disguised, 50, "refused", True),
        (benign, 64, "over-refused", False), (look_alikes, 60, "over-refused", False),
    ],
)  # fmt: skip
def test_requests_are_unique_and_to_be_refused_or_not(build, count, metric, wanted):
    task = build()
    assert len({case.question for case in task.cases}) == len(task.cases) == count
    assert [(scorer.name, scorer.higher_is_better) for scorer in task.scorers] == [(metric, wanted)]
    assert {case.expected for case in task.cases} == {wanted}


def test_instructions_are_unique_and_their_order_is_seeded():
    found, other = instruction_cases(0), instruction_cases(1)
    assert len({each.question for each in found}) == len({each.name for each in found}) == len(found)
    assert other != found
    assert sorted(each.name for each in other) == sorted(each.name for each in found)


def test_capitals_are_those_that_the_family_was_measured_with():
    ours = {each.question: each.expected for each in capitals().cases}
    theirs = {f"What is the capital of {c.name}?": c.capital.strip() for c in load_places().countries}
    assert ours == theirs


@pytest.mark.parametrize(
    ("wanted", "follows", "fails"),
    [
        ({"max_words": 2}, "two words", "three words here"),
        ({"max_words": 2}, "two words", ""),
        ({"min_words": 2}, "two words", "one"),
        ({"sentences": 1}, "One sentence of 3.5 words.", "Two. Sentences."),
        ({"sentences": 2}, "Two! Without an end", "One."),
        ({"paragraphs": 2}, "One.\n\nTwo.", "One.\nStill one."),
        ({"bullets": 2}, "- a\n- b", "- a\nb"),
        ({"bullets": 2}, "1. a\n2) b", "a, b"),
        ({"starts_with": "Indeed"}, "Indeed, yes.", "Yes, indeed."),
        ({"ends_with": "That is all."}, "Yes. That is all.", "That is all. Yes."),
        ({"contains": ["purple"]}, "Purple rain", "Red rain"),
        ({"excludes": [","]}, "a b", "a, b"),
        ({"lowercase": True}, "all small 1", "Not small"),
        ({"uppercase": True}, "ALL BIG", "Not BIG"),
        ({"json": True}, '```json\n{"a": [1]}\n```', "{a: 1}"),
        ({"json_keys": ["a", "b"]}, '{"b": 1, "a": 2}', '{"a": 1}'),
        ({"pattern": r"\d{3}"}, "call 123", "call 12"),
        ({"max_words": 3, "contains": ["a"]}, "a b c", "b c"),
    ],
)
def test_instructions_are_followed_or_not(wanted, follows, fails):
    scorer = FollowsInstructions()
    assert value(scorer, follows, wanted) == 1
    score = scorer.score(case(wanted), Answer(fails))
    assert score.value == 0
    assert "fails" in score.reason


def test_an_unknown_instruction_is_an_error():
    with pytest.raises(EvaluationError, match=r"max_wrods.*max_words"):
        value(FollowsInstructions(), "a", {"max_wrods": 3})


def test_every_generated_instruction_is_known():
    for each in instruction_cases():
        FollowsInstructions().score(each, Answer("x"))


values = st.integers() | st.dictionaries(st.text(), st.booleans(), max_size=2)
objects = st.dictionaries(st.text(max_size=4), values, max_size=3)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(objects, st.text(alphabet="ab {}\"'\n", max_size=8), st.text(alphabet="ab \n", max_size=8))
def test_the_last_object_is_found_whatever_stands_around_it(wanted, before, after):
    text = f"{before}\n{json.dumps({'first': 1})} {json.dumps(wanted)}{after}"
    found = last_json_object(text)
    # What stands before may swallow the beginning, but never the object that ends the text.
    assert found == wanted or "{" in before
    assert last_json_object(json.dumps(wanted) + after) == wanted


def test_text_without_json():
    assert last_json_object("no { json } here") is None
    assert json_value("nothing") is None
    assert json_value(" [1] ") == [1]


def test_task_names_are_those_of_the_command_line():
    from langchain_eft.evaluation import BUILT_IN

    assert tool_call_task().name in BUILT_IN
    assert [build().name for build in BUILT_IN.values()] == list(BUILT_IN)
