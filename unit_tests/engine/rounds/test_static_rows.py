"""What the host writes for rows that stay: after any history, the same as for new ones."""

import random

import pytest
import torch
from langchain_eft.engine.rounds.static_rows import StaticRows
from langchain_eft.engine.rounds.transfer import input_fields, paging_fields

from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.rounds.staging import HostToDevice
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from unit_tests.engine.scheduling.states import TOKENIZER, new_state

CPU, BLOCK, MOST_ROWS, NUM_BLOCKS = torch.device("cpu"), 4, 4, 1000
KINDS = (
    {"mixture": {"one": 1.0}},
    {"mixture": {"one": 0.5, "two": 0.25}, "sampling": SamplingParams(temperature=0.5, top_p=0.8, seed=3)},
    {"mixture": {"one": Ramp(start=1.0, end=0.0, tokens=6)}},
    {"mixture": {"two": FirstTokens(tokens=3, weight=0.0, then=1.5)}, "speculation": 5},
    {"mixture": {"one": 1.0}, "top_p": 0.5},
    {"mixture": {"one": Gate(below=0.4), "two": Gate(above=2.0, measure="entropy", otherwise=0.5)}},
    {"mixture": {}},
)
PENALIZED = (
    {"mixture": {"one": 1.0}, "sampling": SamplingParams(repetition_penalty=1.2, logit_bias={7: 1.0})},
    {"mixture": {"one": 1.0}, "sampling": SamplingParams(frequency_penalty=0.5)},
)


class Host:
    """The host's side of static rounds: blocks of memory by shape, and the rows of the last round."""

    def __init__(self):
        self.inputs, self.rows = {}, None

    def write(self, drafts, unread):
        states = list(drafts)
        if self.rows is None or not self.rows.are(states):
            self.rows = StaticRows(states, MOST_ROWS, NUM_BLOCKS)
        shape = self.rows.shape(drafts, unread)
        if shape not in self.inputs:
            fields = input_fields(shape, len(TOKENIZER)) | paging_fields(shape, BLOCK)
            self.inputs[shape] = HostToDevice(fields, CPU)
        block = self.inputs[shape].open(self.rows)
        self.rows.write(block, shape, drafts, unread)
        return block.memory.clone()


def cover(state):
    """Give a row the blocks of all its tokens."""
    for prompt in state.prompts.values():
        while len(prompt.block_table) * BLOCK < len(prompt.tokens):
            prompt.block_table.append(random.randrange(NUM_BLOCKS))


def started(kind):
    kind = dict(kind)
    state = new_state([5, 6, 7], kind.pop("mixture"), max_tokens=500, **kind)
    cover(state)
    return state


@pytest.mark.parametrize("kinds", [KINDS, (*KINDS, *PENALIZED)], ids=["plain", "penalties"])
@pytest.mark.parametrize("seed", range(6))
def test_a_block_that_is_written_on_equals_one_that_is_written_anew(seed, kinds):
    random.seed(seed)
    host, running, written_on, unread = Host(), [started(random.choice(kinds))], 0, {}
    for _ in range(60):
        if random.random() < 0.1 and len(running) < MOST_ROWS:  # a row joins
            running.append(started(random.choice(kinds)))
        if random.random() < 0.1 and len(running) > 1:  # a row leaves
            running.pop(random.randrange(len(running)))
        if random.random() < 0.1:  # a row is preempted, and comes back before the next static round
            for prompt in random.choice(running).prompts.values():
                prompt.block_table = []
        drafts = {}
        for state in running:
            cover(state)
            count = random.choice([0, 2, 2, 4])
            drafts[state] = random.choice([Draft("model", count), Draft("lookup", count, (9,) * count)])
        before = host.rows
        actual = host.write(drafts, unread)
        written_on += host.rows is before
        assert torch.equal(actual, Host().write(drafts, unread))
        for state, draft in drafts.items():
            state.accept(RowOutcome([random.randrange(5, 200) for _ in range(1 + draft.count // 2)], draft))
        unread = random.choice([{}, drafts])
    assert written_on > 20


def test_rows_are_the_same_only_in_order_and_with_their_blocks():
    first, second = started(KINDS[0]), started(KINDS[0])
    rows = StaticRows([first, second], MOST_ROWS, NUM_BLOCKS)
    assert rows.are([first, second])
    assert not rows.are([second, first])
    assert not rows.are([first])
    next(iter(first.prompts.values())).block_table.append(3)
    assert rows.are([first, second]), "more blocks are no other blocks"
    next(iter(second.prompts.values())).block_table = [8]
    assert not rows.are([first, second])
