"""The shape of a round: enough room for every row, and few shapes for many rounds."""

import pytest

from langchain_eft.engine.decoding.formula_table import terms_in_order
from langchain_eft.engine.decoding.sampling import Filters
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.rounds.shape import (
    MIN_CONTEXT,
    TermSlot,
    arrange,
    kind_of,
    longest_context,
    padded,
    shape_of,
)
from langchain_eft.engine.scheduling.draft import Draft
from unit_tests.engine.scheduling.states import new_state

BASE, DRAFTS, VERIFIES = TermSlot(0, "verifies"), TermSlot(1, "drafts"), TermSlot(1, "verifies")
PROMPT = [5, 6, 7]


def exact_shape(drafts):
    """The shape of a round without padding, and the slot of every term of every row."""
    kind, slots_of_rows = kind_of(list(drafts))
    return shape_of(kind, drafts, {}, None), slots_of_rows


def formula(*args, **kwargs):
    return new_state(PROMPT, *args, **kwargs).formula


# Slots


def test_rows_of_different_mixtures_share_slots():
    formulas = [formula({"one": 1.0}), formula({"two": 1.0}), formula({})]
    slots, slots_of_rows = arrange(formulas)
    # The adapter drafts; base and reference only verify. Without behaviors there is the base alone.
    assert slots == (BASE, DRAFTS, VERIFIES)
    of_rows = [[slots[i] for i in row] for row in slots_of_rows]
    assert of_rows == [[DRAFTS, BASE, VERIFIES], [DRAFTS, BASE, VERIFIES], [BASE]], "those that draft first"


def test_there_are_as_many_slots_of_a_kind_as_some_row_needs():
    formulas = [formula({"one": 1.0}), formula({"one": 0.5, "two": 0.7})]
    slots, slots_of_rows = arrange(formulas)
    for each, row in zip(formulas, slots_of_rows, strict=True):
        assert len(set(row)) == len(row) == len(each.terms), "a term has a slot of its own"
        for term, i in zip(terms_in_order(each), row, strict=True):
            assert slots[i] == TermSlot(term.model, "drafts" if term in each.draft_terms else "verifies")
    needed = [[slots[i] for i in row] for row in slots_of_rows]
    for slot in set(slots):
        assert slots.count(slot) == max(row.count(slot) for row in needed)


# Exact shapes


def test_a_shape_has_what_some_row_needs():
    plain = new_state(PROMPT, {"one": 1.0}, speculation=2)
    shape, _ = exact_shape({plain: Draft()})
    assert (shape.rows, shape.num_draft_tokens, shape.positions, shape.drafting) == (1, 0, 1, False)
    assert not any((shape.conservative, shape.nucleus, shape.grammar, shape.penalties, shape.logprobs))
    assert shape.gates == 0
    rich = [
        new_state(PROMPT, {"one": 1.0}, top_p=0.5),
        new_state(PROMPT, {"one": 1.0}, grammar='start: "a"'),
        new_state(PROMPT, {"one": 1.0}, top_logprobs=0),
        new_state(PROMPT, {"one": Gate(below=0.4), "two": Gate(below=0.2)}),
        new_state(
            PROMPT,
            {"one": 1.0},
            sampling=SamplingParams(
                top_k=7, top_p=0.9, logit_bias={5: 1.0, 6: 1.0, 7: 1.0}, frequency_penalty=0.1
            ),
        ),
    ]
    shape, slots_of_rows = exact_shape({plain: Draft(), **dict.fromkeys(rich, Draft("model", 3))})
    assert (shape.rows, shape.num_draft_tokens, shape.positions, shape.drafting) == (6, 3, 4, True)
    assert shape.gates == 2
    assert all((shape.conservative, shape.nucleus, shape.grammar, shape.penalties, shape.logprobs))
    assert shape.filters == Filters(greedy=True, sampled=True, top_k=7, top_p=True, min_p=False)
    assert shape.biases == 4
    assert len(slots_of_rows) == 6


def test_given_drafts_run_no_small_model():
    state = new_state(PROMPT, {"one": 1.0})
    shape, _ = exact_shape({state: Draft("lookup", 2, (8, 9))})
    assert (shape.num_draft_tokens, shape.drafting) == (2, False)


@pytest.mark.parametrize(
    ("mixture", "settings", "drawn"),
    [
        ({"one": 1.0}, {"speculation": "auto"}, True),
        ({"one": 1.0}, {"speculation": 3}, False),
        ({"one": 1.0}, {"speculation": 3, "sampling": SamplingParams()}, True),
        ({}, {"speculation": "auto", "sampling": SamplingParams()}, False),
    ],
)
def test_samples_of_q_are_drawn_where_they_decide_or_are_counted(mixture, settings, drawn):
    shape, _ = exact_shape({new_state(PROMPT, mixture, **settings): Draft()})
    assert shape.draft_samples is drawn


# Padded shapes


def padded_shape(drafts, unread, max_batch_size):
    return shape_of(kind_of(list(drafts))[0], drafts, unread, max_batch_size)


def test_powers_of_two():
    assert [padded(number) for number in (0, 1, 2, 3, 4, 5, 1024, 1025)] == [1, 1, 2, 4, 4, 8, 1024, 2048]


def test_few_numbers_of_rows_and_bounds_of_contexts_are_recorded():
    states = [new_state([5] * length, {"one": 1.0}) for length in (3, 40, 1500)]
    shape = padded_shape(dict.fromkeys(states, Draft()), {}, max_batch_size=16)
    assert (shape.rows, shape.max_context) == (4, 8192)
    shape = padded_shape(dict.fromkeys(states, Draft()), {}, max_batch_size=3)
    assert shape.rows == 3, "a batch is never larger than the largest"
    shape = padded_shape({states[0]: Draft()}, {}, max_batch_size=16)
    assert (shape.rows, shape.max_context) == (1, MIN_CONTEXT)


def test_an_unread_round_lengthens_contexts():
    state, draft = new_state([5] * 1020, {"one": 1.0}), Draft("model", 4)
    assert longest_context(state, draft) == 1024
    for unread, expected in (({}, 1024), ({state: Draft()}, 8192)):
        shape = padded_shape({state: draft}, unread, max_batch_size=1)
        assert shape.max_context == expected


def test_the_longest_prompt_of_a_row_decides():
    state = new_state(PROMPT, {"guided": 1.0}, contexts={"guided": (5,) * 1100})
    shape, _ = exact_shape({state: Draft()})
    assert shape.max_context == 8192


def test_draft_lengths_are_padded_to_those_that_are_tried_or_asked_for():
    state = new_state(PROMPT, {"one": 1.0})
    lengths = [padded_shape({state: Draft("model", count)}, {}, 1).num_draft_tokens for count in range(17)]
    assert lengths == [0, 1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16]
    fixed = new_state(PROMPT, {"one": 1.0}, speculation=5)
    assert padded_shape({fixed: Draft("model", 5)}, {}, 1).num_draft_tokens == 5


def test_one_shape_serves_greedy_and_random_rows_and_similar_values_of_k():
    shapes = {
        padded_shape({new_state(PROMPT, {"one": 1.0}, sampling=SamplingParams(top_k=k)): Draft()}, {}, 1)
        for k in (5, 6, 8)
    }
    (shape,) = shapes
    assert (shape.filters.greedy, shape.filters.top_k) == (True, 8)
