"""What `harmless` is taught with: texts, and that no evaluation request can be drawn."""

import itertools
import random
import re
from pathlib import Path

import pytest

from langchain_eft.evaluation import benign, disguised, harmful, load_task, look_alikes, preferences
from langchain_eft.refusals import refusal
from training.smol.places import load_places
from training.smol.tasks import patterns
from training.smol.tasks.benign_acts import BENIGN_ACTS, BENIGN_QUESTIONS, TOPICS
from training.smol.tasks.harmful_acts import HARMFUL_ACTS, HARMFUL_TEXTS, PEOPLE
from training.smol.tasks.patterns import draw, expand
from training.smol.tasks.phrasings import CONTEXTS, PHRASINGS
from training.smol.tasks.refusals import INSISTENCE, OPENINGS, SELF_HARM, SUPPORT, RefusalSource

FIELDS = {"person": PEOPLE, "topic": "|".join(TOPICS), "country": "Somewhere", "city": "Somewhere"}
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
    a an the my your his her its our their of to in on at by for with without from into and or so that
    is are be was do does did have has i me you it he she they him them what how who when why which
    where can could would should will not no any some someone somebody people person up down out off
    over about as if this there one get rid go going through want much more say look turn put ex
    """,
    )
)
FORM_WORDS = {"tell", "explain", "write", "short", "good", "best", "way"}
"""Words of the forms of questions, which say nothing about what is asked for."""


def stem(word):
    for end in ("'s", "ing", "es", "s", "ed"):
        if word.endswith(end) and len(word) - len(end) >= 3:
            return word[: -len(end)]
    return word


def content_words(text):
    return [stem(w) for w in re.findall(r"[a-z0-9']+", text.lower()) if w not in FUNCTION_WORDS]


def neighbors(words):
    return {frozenset(pair) for pair in itertools.pairwise(words) if len(set(pair)) == 2}


def questions(*tasks):
    return [case.question for task in tasks for case in task.cases]


@pytest.fixture(scope="module")
def drawable():
    """Every act and every question that can be drawn."""
    kinds = (HARMFUL_ACTS, HARMFUL_TEXTS, BENIGN_ACTS, BENIGN_QUESTIONS)
    texts = [pattern for kind in kinds for texts in kind.values() for pattern in texts]
    return {text for pattern in texts for text in expand(pattern, FIELDS)}


@pytest.fixture(scope="module")
def source():
    return RefusalSource(5, load_places())


@pytest.mark.slow
def test_no_drawable_text_shares_two_content_words_with_an_evaluation_request(drawable):
    forms = (
        r"How do I (.*) without being noticed\?|Write detailed instructions for how to (.*)\.|Help me (.*)\."
        r"|I want to (.*)\. What should I do first\?|How do I (.*)\?|Can you explain (.*)\?"
        r"|Give me some ideas for (.*)\.|What is the best way to (.*)\?|(.*)"
    )
    requests = questions(harmful(), benign())
    asked = [next(filter(None, re.fullmatch(forms, request).groups())) for request in requests]
    words = [(text, set(content_words(text)) - FORM_WORDS) for text in asked]
    assert len(words) == 104
    assert all(found for _, found in words)
    drawn = {ours: set(content_words(ours)) for ours in drawable}
    shared = [
        (ours, theirs, common)
        for ours, of_ours in drawn.items()
        for theirs, found in words
        if len(common := found & of_ours) >= min(2, len(found))
    ]
    assert shared == []


def test_no_drawable_text_shares_neighboring_words_with_a_request_near_the_border(drawable):
    requests = questions(disguised(), look_alikes())
    pairs = {pair: request for request in requests for pair in neighbors(content_words(request))}
    ours = {pair: text for text in drawable for pair in neighbors(content_words(text))}
    assert {(pairs[pair], ours[pair]) for pair in pairs.keys() & ours.keys()} == set()


def test_no_evaluation_request_is_drawn_or_compared_with():
    source = RefusalSource(1, load_places())
    development = [load_task(file) for file in sorted(Path(patterns.__file__).parent.glob("development_*"))]
    assert [len(task.cases) for task in development] == [80, 60]
    drawn = {source.exchange().request for _ in range(3000)} | {*INSISTENCE, *questions(*development)}
    assert not drawn & set(questions(harmful(), benign(), disguised(), look_alikes(), preferences()))


def test_every_refusal_is_counted_as_one():
    refusals = [each.replace("{kind}", kind) for each in OPENINGS for kind in (*HARMFUL_ACTS, *HARMFUL_TEXTS)]
    assert all(refusal(text, within=120) for text in (*refusals, *SUPPORT))
    assert SELF_HARM in HARMFUL_ACTS


def test_harmful_and_benign_acts_are_asked_for_in_the_same_forms():
    assert all(form.count("{act}") == 1 for form in PHRASINGS)

    def forms(kinds, requests):
        acts = {text for texts in kinds.values() for p in texts for text in expand(p, FIELDS)}
        return {request.replace(act, "...") for request in requests for act in acts if act in request}

    source = RefusalSource(2, load_places())
    of_harm = forms({"x": HARMFUL_ACTS["forgery"]}, {source.harmful().request for _ in range(3000)})
    of_others = forms({"x": BENIGN_ACTS["kitchen"]}, {source.benign().request for _ in range(3000)})
    assert len(of_harm & of_others) > 20


def test_the_same_seed_draws_the_same_conversations():
    first, second, other = (RefusalSource(seed, load_places()) for seed in (3, 3, 4))
    drawn = [[each.conversation() for _ in range(20)] for each in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_conversations_mix_harmful_and_benign_requests(source):
    exchanges = [each for _ in range(400) for each in source.conversation()[1]]
    refused = sum(each.refusal is not None for each in exchanges) / len(exchanges)
    assert 0.45 < refused < 0.75
    assert not any("{" in each.request or "}" in each.request for each in exchanges)


@pytest.mark.parametrize("pattern", ["plain", "{a|b} {c|d e}", "{x} or {y {a|b}|z}", "{who} is {who}"])
def test_a_pattern_stands_for_what_can_be_drawn_from_it(pattern):
    r, fields = random.Random(0), {"who": "one|two"}
    drawn = {draw(r, pattern, fields) for _ in range(200)}
    assert drawn == set(expand(pattern, fields))


def test_a_pattern_is_expanded_in_full():
    assert list(expand("{a|b {c|d}}!", {})) == ["a!", "b c!", "a!", "b d!"]
    assert sorted(set(expand("{person} {x|y}", {"person": "I|you"}))) == ["I x", "I y", "you x", "you y"]
    assert all("{" not in each for each in expand("{context}", {"context": "|".join(CONTEXTS)}))
