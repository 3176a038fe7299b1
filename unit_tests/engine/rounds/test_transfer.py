"""What host and device tell each other: every parameter reaches the device, and results come back."""

import pytest
import torch

from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.rounds.shape import exact_shape
from langchain_eft.engine.rounds.staging import PackedTensors
from langchain_eft.engine.rounds.transfer import (
    input_fields,
    output_fields,
    paging_fields,
    read_outcomes,
    write_allowed,
    write_blocks,
    write_rows,
    write_terms,
)
from langchain_eft.engine.scheduling.draft import Draft
from unit_tests.engine.scheduling.states import BEHAVIORS, TOKENIZER, ids, new_state

CPU, SIZE, BLOCK = torch.device("cpu"), len(TOKENIZER), 4


def written(drafts, unread=()):
    """The shape of a round, and the block that the host writes for it."""
    shape, slots = exact_shape(drafts)
    host = PackedTensors({**input_fields(shape, SIZE), **paging_fields(shape, BLOCK)}, CPU)
    write_rows(host, shape, drafts, slots, unread)
    return shape, slots, host


def of_params(**params):
    """What the device is told of a request with these sampling parameters."""
    return written({new_state([5, 6], {"one": 1.0}, sampling=SamplingParams(**params)): Draft()})[2]


@pytest.mark.parametrize(
    ("params", "column", "value"),
    [
        ({"seed": 2**62 + 1}, "seed", 2**62 + 1),
        ({"temperature": 0}, "greedy", True),
        ({"temperature": 0.75}, "greedy", False),
        ({"temperature": 0.75}, "temperature", 0.75),
        ({"top_k": 7}, "top_k", 7),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"min_p": 0.25}, "min_p", 0.25),
        ({"repetition_penalty": 1.5}, "repetition", 1.5),
        ({"frequency_penalty": 0.5}, "frequency", 0.5),
        ({"presence_penalty": 0.25}, "presence", 0.25),
    ],
)
def test_every_sampling_parameter_reaches_the_device(params, column, value):
    assert of_params(**params)[column].tolist() == [value]


def test_biases_reach_the_device_token_by_token():
    host = of_params(logit_bias={7: 2.0, 9: -1.0})
    assert dict(zip(host["biased"][0].tolist(), host["bias"][0].tolist(), strict=True)) == {7: 2.0, 9: -1.0}


def test_a_row_starts_where_its_answer_stands():
    state = new_state([5, 6, 7], {"one": 1.0}, max_tokens=20)
    _, _, host = written({state: Draft("lookup", 2, (8, 9, 10))})
    names = ("source", "last", "num_output_tokens", "limit", "prompt", "count")
    assert [int(host[name]) for name in names] == [0, 7, 0, 20, 3, 2]
    assert host["given"].tolist() == [[9, 10]]  # plus 1: 0 stands for what the small models draft


def test_a_row_continues_its_row_of_an_unread_round():
    first, second = new_state([5], {"one": 1.0}), new_state([6], {"one": 1.0})
    _, _, host = written({second: Draft(), first: Draft()}, unread={first: Draft(), second: Draft()})
    assert host["source"].tolist() == [2, 1]


def test_coefficients_are_those_of_the_formula_and_other_slots_are_zero():
    both, alone = new_state([5], {"one": 0.5}), new_state([5])
    shape, slots, host = written({both: Draft(), alone: Draft()})
    for row, state in enumerate((both, alone)):
        expected = [0.0] * len(shape.slots)
        for term, weight in state.formula.at(0).target:
            expected[slots[row][state.formula.terms.index(term)]] = weight
        assert host["target"][:, row, 0].tolist() == expected
        used = [slot in slots[row] for slot in range(len(shape.slots))]
        assert host["used"][:, row].tolist() == used


def test_gates_are_those_of_the_formula_and_rows_without_have_none():
    gates = {"one": Gate(below=0.4, weight=1.5, otherwise=0.5), "two": Gate(above=2, measure="entropy")}
    gated, plain = new_state([5], gates), new_state([5], {"one": 1.0})
    shape, slots, host = written({plain: Draft(), gated: Draft()})
    slot_of = dict(zip(gated.formula.terms, slots[1], strict=True))
    assert int(host["large"][1]) == slot_of[gated.formula.base]
    assert host["gate_measure"][1].tolist() == [0, 1]
    assert host["gate_threshold"][1].tolist() == pytest.approx([0.4, 2.0])
    assert host["gate_below"][1].tolist() == [True, False]
    for number, (name, change) in enumerate((("one", 1.0), ("two", 1.0))):
        tuned, reference = BEHAVIORS[name]
        expected = [0.0] * len(shape.slots)
        expected[slot_of[tuned]], expected[slot_of[reference]] = change, -change
        assert host["gated"][1, number].tolist() == expected
    assert not host["gated"][0].any()
    assert "gated" not in input_fields(written({plain: Draft()})[0], SIZE)


def test_blocks_are_shifted_to_the_variant_that_reads_them():
    state = new_state([5, 6, 7], {"two": 1.0})
    for prompt in state.prompts.values():
        prompt.block_table = [3, 4]
    _, slots, host = written({state: Draft()})
    write_terms(host, [state], slots)
    write_blocks(host, 0, state, slots[0], num_blocks=100)
    for term, slot in zip(state.formula.terms, slots[0], strict=True):
        assert host["table"][slot, 0, :2].tolist() == [3 + 100 * term.variant, 4 + 100 * term.variant]
        assert int(host["start"][slot, 0]) == 3
        assert int(host["variant"][slot, 0]) == term.variant


def test_a_grammar_allows_what_may_follow_each_draft_token():
    state = new_state([5], {"one": 1.0}, grammar="start: /ab*/")
    free = new_state([5], {"one": 1.0})
    drafts = {state: Draft("lookup", 1, tuple(ids("a"))), free: Draft("lookup", 1, (7,))}
    _, _, host = written(drafts)
    write_allowed(host, [state, free], [ids("a"), [7]])
    bits = (host["allowed"][..., None] >> torch.arange(32, dtype=torch.int32)) & 1
    allowed = bits.flatten(2)[..., :SIZE].bool()
    assert allowed[0, 0].nonzero()[:, 0].tolist() == ids("a")
    assert set(ids("b")) < set(allowed[0, 1].nonzero()[:, 0].tolist()), "and what ends the answer"
    assert torch.equal(allowed[0, 1], state.grammar.mask(ids("a")))
    assert bool(allowed[1].all())


def test_outcomes_hold_the_accepted_tokens_and_the_next_one_of_rows_that_go_on():
    state, cancelled = new_state([5], {"one": 1.0}), new_state([6], {"one": 1.0})
    cancelled.generation.cancel()
    drafts = {state: Draft("model", 3), cancelled: Draft("model", 3)}
    shape, _ = exact_shape(drafts)
    content = PackedTensors(output_fields(shape), CPU)
    content["draft_tokens"][0] = torch.tensor([11, 12, 13])
    content["count"][:] = 3
    content["tokens"][0] = torch.tensor([11, 12, 99, 98])
    content["accepted"][0] = 2
    content["draft_samples"][0] = torch.tensor([11, 12, 13, -1])
    outcomes = read_outcomes(content, shape, drafts)
    assert list(outcomes) == [state]
    outcome = outcomes[state]
    assert (outcome.tokens, outcome.draft_tokens, outcome.num_accepted) == ([11, 12, 99], [11, 12, 13], 2)
    assert outcome.draft_samples == [11, 12, 13]
