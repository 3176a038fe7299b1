"""Text deltas hold whole characters, and stop strings are found across deltas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_eft.engine.decoding.answer_text import Detokenizer, StopMatcher
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


class Counting:
    """A tokenizer that counts the tokens it decodes."""

    def __init__(self):
        self.decoded = 0

    def __getattr__(self, name):
        return getattr(TOKENIZER, name)

    def decode(self, token_ids, **options):
        self.decoded += len(token_ids)
        return TOKENIZER.decode(token_ids, **options)


def test_a_token_costs_the_same_however_many_without_a_character_came_before_it():
    counting, count = Counting(), 2000
    detokenizer, part = Detokenizer(counting), ids("界")[1]
    said = "".join(detokenizer.feed([part]) for _ in range(count)) + detokenizer.feed(ids("a界"))
    assert said + detokenizer.flush() == "\ufffd" * count + "a界"
    assert counting.decoded < 200 * count  # a quadratic number is 2 million


@given(st.lists(st.sampled_from([*ids("a界"), *ids("👩é"), 0]), max_size=40))
def test_bytes_in_any_order_become_the_text_of_all_tokens(tokens):
    detokenizer = Detokenizer(TOKENIZER)
    said = "".join(detokenizer.feed([token]) for token in tokens) + detokenizer.flush()
    whole = TOKENIZER.decode([token for token in tokens if token])
    assert whole.startswith(said)
    assert set(whole[len(said) :]) <= {"\ufffd"}


def test_many_stop_strings_cost_little_more_than_one():
    compared = 0

    class Stop(str):
        __slots__ = ()

        def startswith(self, *args):
            nonlocal compared
            compared += 1
            return str.startswith(self, *args)

    matcher = StopMatcher([Stop(f"{number:09}") for number in range(2000)])
    assert "".join(matcher.feed("000-") for _ in range(100)) == "000-" * 100
    assert compared < 10_000  # one for each end of the text, not for each stop string
