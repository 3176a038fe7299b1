"""What the host tells the device of a round, beside the table."""

import torch

from langchain_eft.engine.decoding.formula_table import terms_in_order
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.rounds.inputs import Rows, input_fields, write_allowed
from langchain_eft.engine.rounds.shape import kind_of
from langchain_eft.engine.rounds.staging import PackedTensors
from langchain_eft.engine.scheduling.draft import Draft
from unit_tests.engine.scheduling.states import TOKENIZER, ids, new_state

SIZE, TERMS = len(TOKENIZER), 4


def written(drafts, rows=(3, 1, 2)):
    """The shape of a round, the slots of its rows, and the block that the host writes for it."""
    of_round = Rows(list(drafts))
    shape = of_round.shape(drafts, {}, None)
    host = PackedTensors(input_fields(shape, TERMS, SIZE), torch.device("cpu"))
    of_round.write(host, shape, rows[: len(drafts)], drafts)
    return shape, kind_of(list(drafts))[1], host


def test_rows_are_those_of_the_table_with_their_drafts():
    first, second = new_state([5, 6, 7], {"one": 1.0}), new_state([5], {"one": 1.0})
    _, _, host = written({first: Draft("lookup", 2, (8, 9, 10)), second: Draft("model", 1)})
    assert host["rows"].tolist() == [3, 1]
    assert host["count"].tolist() == [2, 1]
    assert host["given"].tolist() == [[9, 10], [0, 0]]  # plus 1: 0 stands for what the small models draft


def test_slots_and_terms_say_the_same_both_ways():
    both, alone = new_state([5], {"one": 0.5, "two": 0.5}), new_state([5])
    shape, slots, host = written({both: Draft(), alone: Draft()})
    for row, state in enumerate((both, alone)):
        terms = terms_in_order(state.formula)
        assert host["slot"][row, : len(terms)].tolist() == slots[row]
        assert (host["slot"][row, len(terms) :] == slots[row][0]).all(), "in place of a term, the first one"
        for number, slot in enumerate(slots[row]):
            assert (int(host["term"][slot, row]), bool(host["used"][slot, row])) == (number, True)
        assert host["used"][:, row].sum() == len(terms)
    assert len(shape.slots) == 4


def test_biases_reach_the_device_token_by_token():
    params = SamplingParams(logit_bias={7: 2.0, 9: -1.0})
    _, _, host = written({new_state([5, 6], {"one": 1.0}, sampling=params): Draft()})
    assert dict(zip(host["biased"][0].tolist(), host["bias"][0].tolist(), strict=True)) == {7: 2.0, 9: -1.0}


def test_a_history_is_that_of_the_rows_with_penalties():
    penalized = new_state([5, 6], {"one": 1.0}, sampling=SamplingParams(frequency_penalty=0.5))
    _, _, host = written({new_state([8], {"one": 1.0}): Draft(), penalized: Draft()})
    assert host["history"][:, :3].tolist() == [[0, 0, 0], [5, 6, 0]]


def test_a_grammar_allows_what_may_follow_each_draft_token():
    state = new_state([5], {"one": 1.0}, grammar="start: /ab*/")
    free = new_state([5], {"one": 1.0})
    _, _, host = written({state: Draft("lookup", 1, tuple(ids("a"))), free: Draft("lookup", 1, (7,))})
    write_allowed(host, [state, free], [ids("a"), [7]])
    bits = (host["allowed"][..., None] >> torch.arange(32, dtype=torch.int32)) & 1
    allowed = bits.flatten(2)[..., :SIZE].bool()
    assert allowed[0, 0].nonzero()[:, 0].tolist() == ids("a")
    assert set(ids("b")) < set(allowed[0, 1].nonzero()[:, 0].tolist()), "and what ends the answer"
    assert torch.equal(allowed[0, 1], state.grammar.mask(ids("a")))
    assert bool(allowed[1].all())
