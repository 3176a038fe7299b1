"""What the device knows of requests: every parameter reaches it, and a row is freed for the next request."""

import random
from types import SimpleNamespace

import pytest
import torch

from langchain_eft.engine.decoding.formula_table import SUMS, terms_in_order
from langchain_eft.engine.recipe.gate import Gate
from langchain_eft.engine.recipe.schedules import FirstTokens, Ramp
from langchain_eft.engine.request import SamplingParams
from langchain_eft.engine.rounds.row_table import DEAD, TERM, RowTable
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from unit_tests.engine.scheduling.states import BASE, BEHAVIORS, new_state

CPU, BLOCK, NUM_BLOCKS, MOST_ROWS = torch.device("cpu"), 4, 100, 4
FAMILY = SimpleNamespace(base=BASE, behaviors=BEHAVIORS, prompt_names={"", "guided"}, window=64)
KINDS = (
    {"mixture": {"one": 1.0}},
    {"mixture": {"one": 0.5, "two": 0.25}, "sampling": SamplingParams(temperature=0.5, top_p=0.8, seed=3)},
    {"mixture": {"one": Ramp(start=1.0, end=0.0, tokens=6)}},
    {"mixture": {"two": FirstTokens(tokens=3, weight=0.0, then=1.5)}},
    {"mixture": {"one": 1.0}, "top_p": 0.5},
    {"mixture": {"one": Gate(below=0.4), "two": Gate(above=2.0, measure="entropy", otherwise=0.5)}},
    {"mixture": {"guided": 1.0}, "contexts": {"guided": (9, 8, 7, 6, 5)}},
    {"mixture": {}},
    {"mixture": {"one": 1.0}, "sampling": SamplingParams(repetition_penalty=1.2)},
)


def new_table(device=CPU, **settings):
    return RowTable(FAMILY, MOST_ROWS, NUM_BLOCKS, BLOCK, device, **settings)


def started(kind):
    kind = dict(kind)
    return new_state([5, 6, 7], kind.pop("mixture"), max_tokens=500, **kind)


def row_of(table, state):
    """The row of a request, and its columns."""
    row = torch.tensor(table.of([state]))
    table.flush()
    return row, table.columns(row)


def everything(table, states):
    """All that the device knows of requests."""
    rows = torch.tensor(table.of(states), dtype=torch.int64)
    table.flush()
    blocks = [
        table.blocks[row, number, : len(prompt.block_table)].tolist()
        for row, state in zip(rows.tolist(), states, strict=True)
        for number, prompt in enumerate(state.prompts.values())
    ]
    columns = [numbers.index_select(1, rows).tolist() for numbers in (x.device for x in table._numbers)]
    coefficients = table.coefficients.rows.device[rows].tolist()
    return columns, coefficients, blocks, table.progress[rows].tolist()


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
    _, columns = row_of(new_table(), new_state([5, 6], {"one": 1.0}, sampling=SamplingParams(**params)))
    assert columns[column].tolist() == [value]


def test_a_row_starts_where_its_answer_stands():
    table, state = new_table(), new_state([5, 6, 7], {"one": 1.0}, max_tokens=20)
    state.accept(RowOutcome((9, 8), Draft()))
    row, columns = row_of(table, state)
    assert table.progress[row].tolist() == [[8, 2]]
    assert [int(columns[name]) for name in ("limit", "prompt")] == [20, 3]


@pytest.mark.parametrize("kind", KINDS, ids=range(len(KINDS)))
def test_coefficients_are_those_of_the_formula_at_every_position(kind):
    table, state = new_table(), started(kind)
    (row, _), terms = row_of(table, state), terms_in_order(state.formula)
    for position in range(9):
        actual = table.coefficients.at(row, torch.tensor([position]), change=True)[0]
        for name, weights in zip(SUMS, actual, strict=True):
            expected = dict(getattr(state.formula.at(position), name) or ())
            assert weights[: len(terms)].tolist() == pytest.approx([expected.get(term, 0) for term in terms])
            assert not weights[len(terms) :].any()


def test_gates_are_those_of_the_formula_and_rows_without_have_none():
    gates = {"one": Gate(below=0.4, weight=1.5, otherwise=0.5), "two": Gate(above=2, measure="entropy")}
    table, gated = new_table(), new_state([5], gates)
    terms, (_, columns) = terms_in_order(gated.formula), row_of(table, gated)
    assert terms[int(columns["base"])] == BASE
    assert columns["gate_measure"][0, :2].tolist() == [0, 1]
    assert columns["gate_threshold"][0, :2].tolist() == pytest.approx([0.4, 2.0])
    assert columns["gate_below"][0, :2].tolist() == [1, 0]
    for number, (name, change) in enumerate((("one", 1.0), ("two", 1.0))):
        tuned, reference = BEHAVIORS[name]
        expected = [{tuned: change, reference: -change}.get(term, 0.0) for term in terms]
        assert columns["gated"][0, number, : len(terms)].tolist() == expected
    assert not row_of(table, new_state([5], {"one": 1.0}))[1]["gated"].any()


def test_terms_that_draft_come_first_and_read_their_prompts():
    state = new_state([5, 6, 7], {"guided": 1.0, "two": 0.5}, contexts={"guided": (9, 8)})
    for slot, prompt in enumerate(state.prompts.values()):
        prompt.state_slot = slot
    terms, (_, columns) = terms_in_order(state.formula), row_of(new_table(num_slots=10), state)
    assert terms[: int(columns["num_draft_terms"])] == list(state.formula.draft_terms)
    names, of_terms = list(state.prompts), columns["terms"][0]
    for term, (variant, start, prompt_end, prompt, slot, first_own) in zip(
        terms, of_terms.t().tolist(), strict=False
    ):
        read = state.prompts[term.prompt_name]
        assert (variant, names[prompt]) == (term.variant, term.prompt_name)
        assert (start, prompt_end) == (len(read.tokens), read.tokens[-1])
        assert (slot, first_own) == (read.state_slot + 10 * variant, 0)
    assert len(TERM) == len(of_terms)


def test_the_row_of_no_request_stays_empty():
    table = new_table()
    assert DEAD not in table.of([started(kind) for kind in KINDS[:MOST_ROWS]])
    assert not any(numbers.device[:, DEAD].any() for numbers in table._numbers)


@pytest.mark.parametrize("seed", range(4))
def test_rows_after_any_history_are_those_of_a_new_table(seed):
    """Requests come, grow, are preempted and leave; on the device, as far as it shows without one."""
    rng, table, running = random.Random(seed), new_table(), []
    for _ in range(60):
        if rng.random() < 0.2 and len(running) < MOST_ROWS:
            running.append(started(rng.choice(KINDS)))
        if rng.random() < 0.1 and running:
            running.pop(rng.randrange(len(running)))
        if rng.random() < 0.1 and running:  # preempted, and back before the next round
            for prompt in (state := rng.choice(running)).prompts.values():
                prompt.block_table = []
            table.keep(other for other in running if other is not state)
        table.keep(running)
        for state in running:
            state.accept(RowOutcome([rng.randrange(5, 200) for _ in range(rng.randrange(2))], Draft()))
            for prompt in state.prompts.values():
                while len(prompt.block_table) * BLOCK < min(len(prompt.tokens), FAMILY.window):
                    prompt.block_table.append(rng.randrange(NUM_BLOCKS))
        table.of(running)
        table.restore(running)
        assert everything(table, running) == everything(new_table(), running)
