"""Text deltas hold whole characters, and stop strings are found across deltas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_eft.engine.decoding.detokenizer import Detokenizer, StopMatcher
from unit_tests.tiny import tokenizer

TOKENIZER = tokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False, split_special_tokens=True).input_ids


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=40))
def test_deltas_join_to_the_text_and_never_hold_part_of_a_character(text):
    detokenizer = Detokenizer(TOKENIZER)
    deltas = [detokenizer.feed([token]) for token in ids(text)]
    assert "".join(deltas) + detokenizer.flush() == text
    assert all("\ufffd" not in delta for delta in deltas)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_several_tokens_at_once(chunk):
    text = "naïve こんにちは 👩‍🚀 ok"
    tokens, detokenizer = ids(text), Detokenizer(TOKENIZER)
    deltas = [detokenizer.feed(tokens[i : i + chunk]) for i in range(0, len(tokens), chunk)]
    assert "".join(deltas) + detokenizer.flush() == text


def test_an_incomplete_character_is_dropped_at_the_end():
    tokens = ids("ab界")[:-1]
    detokenizer = Detokenizer(TOKENIZER)
    output = "".join(detokenizer.feed([token]) for token in tokens)
    assert output + detokenizer.flush() == "ab"


def test_special_tokens_have_no_text():
    detokenizer = Detokenizer(TOKENIZER)
    text = "".join(detokenizer.feed([token]) for token in [*ids("a"), 1, 0, *ids("b")])
    assert text == "ab"


text = st.text("abc", max_size=30)
stops = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@given(text, stops, st.randoms())
def test_the_answer_ends_before_the_first_stop_string_in_any_division_into_deltas(text, stops, random):
    matcher, output, rest = StopMatcher(stops), "", text
    while rest and not matcher.stopped:
        size = random.randint(1, 4)
        output += matcher.feed(rest[:size])
        rest = rest[size:]
    output += "" if matcher.stopped else matcher.flush()
    starts = [text.find(stop) for stop in stops if stop in text]
    # The stop string that is complete first ends the answer, even if another one starts earlier.
    complete = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert matcher.stopped == bool(starts)
    assert output == text[: len(output)]
    if complete:
        assert min(starts) <= len(output) <= max(start for _, start in complete)
        assert not any(stop in output for stop in stops)
    else:
        assert output == text


def test_text_that_cannot_become_a_stop_is_shown_at_once():
    matcher = StopMatcher(["STOP"])
    assert matcher.feed("abc") == "abc"
    assert matcher.feed("xST") == "x"
    assert matcher.feed("A") == "STA"
    assert matcher.feed("STOP and more") == ""
    assert matcher.stopped
