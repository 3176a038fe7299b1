"""The scheduler without models: who runs in the next round, with how many tokens and how much memory."""

from langchain_eft.engine.scheduling.block_manager import BlockManager
from langchain_eft.engine.scheduling.draft import Draft, RowOutcome
from langchain_eft.engine.scheduling.prompt_state import PromptState
from langchain_eft.engine.scheduling.scheduler import Batch, Scheduler, decoding_row
from unit_tests.engine.scheduling.states import END, compute, new_state

BLOCK = 4


class Planned:
    """A speculator that drafts what a test says, and nothing else."""

    def __init__(self):
        self.drafts = {}

    def draft(self, states, unread):
        return {state: self.drafts.get(state, Draft()) for state in states}


def new_scheduler(blocks=100, rows=8, budget=64, *, mixes=True) -> tuple[Scheduler, BlockManager]:
    manager = BlockManager(blocks, BLOCK)
    return Scheduler(manager, Planned(), rows, budget, mixes=mixes), manager


def scheduled(scheduler) -> list:
    """The rows of the next round, or of the next pass over prompts."""
    batch = scheduler.schedule({})
    return [*map(decoding_row, batch.drafts), *batch.chunks]


def add(scheduler, *prompts, **kwargs) -> list:
    states = [new_state(prompt, **kwargs) for prompt in prompts]
    for state in states:
        scheduler.add(state)
    return states


def prompts(*lengths) -> list[list[int]]:
    """Prompts of these lengths, none of which begins as another does."""
    return [[4 + 10 * i, *range(100, 99 + length)] for i, length in enumerate(lengths)]


def decoding(scheduler, *lengths) -> list:
    """Requests that have computed their prompts and drawn their first token."""
    states = add(scheduler, *prompts(*lengths))
    compute(scheduled(scheduler))
    assert all(state.decoding for state in states)
    return states


def shares(rows) -> list:
    return [(row.state, row.num_tokens) for row in rows]


def finish(scheduler, state) -> None:
    state.accept(RowOutcome((END,), Draft()))
    scheduler.remove_ended()


# Admission


def test_requests_are_admitted_in_order_up_to_the_batch_size():
    scheduler, _ = new_scheduler(rows=2)
    first, second, third = add(scheduler, *prompts(3, 3, 3))
    assert [row.state for row in scheduled(scheduler)] == [first, second]
    assert list(scheduler.waiting) == [third]
    finish(scheduler, first)
    scheduled(scheduler)
    assert scheduler.running == [second, third]


def test_a_request_that_does_not_fit_is_not_overtaken():
    scheduler, _ = new_scheduler(blocks=4)
    (first,) = decoding(scheduler, 7)
    large, small = add(scheduler, *prompts(2, 12, 2)[1:])
    assert [row.state for row in scheduled(scheduler)] == [first]
    assert list(scheduler.waiting) == [large, small]


def test_finished_and_cancelled_requests_free_their_memory_and_leave_the_queue():
    scheduler, blocks = new_scheduler(rows=2)
    first, second = decoding(scheduler, 7, 7)
    (third,) = add(scheduler, [99])
    assert blocks.num_free_blocks == 100 - 4
    second.generation.cancel()
    third.generation.cancel()
    finish(scheduler, first)
    assert (scheduler.running, list(scheduler.waiting), scheduler.schedule({})) == ([], [], Batch())
    assert blocks.num_free_blocks == 100


def test_prompts_are_read_while_a_round_is_unread():
    scheduler, _ = new_scheduler(rows=2, mixes=False)
    (first,) = decoding(scheduler, 3)
    (second,) = add(scheduler, [99, 98])
    batch = scheduler.schedule({first: Draft()})
    assert list(batch.drafts) == [first], "it goes on, and the prompt does not hold it up"
    assert shares(batch.chunks) == [(second, 2)]
    compute(batch.chunks)
    assert list(scheduler.schedule({first: Draft()}).drafts) == [first, second]


def test_rows_that_decode_share_the_pass_of_prompts_where_that_is_cheaper():
    scheduler, _ = new_scheduler(mixes=True)
    (first,) = decoding(scheduler, 3)
    (second,) = add(scheduler, [99, 98])
    batch = scheduler.schedule({})
    assert (batch.drafts, shares(batch.chunks)) == ({}, [(first, 1), (second, 2)])


def test_no_prompt_holds_up_a_row_that_decodes():
    """16 requests decode while 50 prompts of 2,000 tokens arrive, one in each step."""
    budget = 2048
    scheduler, _ = new_scheduler(blocks=40_000, rows=66, budget=budget, mixes=False)
    decoding(scheduler, *[8] * 16)
    arriving, unread, steps = prompts(*[2000] * 50), {}, 0
    while arriving or any(not state.decoding for state in scheduler.running):
        if arriving:
            add(scheduler, arriving.pop(), max_tokens=500)
        ready = [state for state in scheduler.running if state.decoding]
        batch = scheduler.schedule(unread)
        assert list(batch.drafts) == ready, "each gets its token in a round of its own"
        assert not set(ready) & {row.state for row in batch.chunks}
        assert sum(row.num_tokens for row in batch.chunks) <= budget
        compute(map(decoding_row, unread))
        compute(batch.chunks)
        unread, steps = batch.drafts, steps + 1
    assert steps <= 60, "and prompts wait for no more than their turn"


def test_an_unread_round_is_read_before_memory_is_taken_from_others():
    scheduler, _ = new_scheduler(blocks=4, mixes=False)
    first, second = decoding(scheduler, 6, 6)  # 7 tokens each, with room for one more
    unread = {first: Draft(), second: Draft("model", 1)}
    assert scheduler.schedule(unread) is None
    assert scheduler.preemptions == 0
    for _ in range(2):
        compute(map(decoding_row, (first, second)))
    assert list(scheduler.schedule({}).drafts) == [first]
    assert scheduler.preemptions == 1


# The token budget


def test_prompts_share_the_budget():
    scheduler, _ = new_scheduler(budget=8)
    first, second = add(scheduler, *prompts(20, 20))
    assert shares(scheduled(scheduler)) == [(first, 4), (second, 4)]


def test_what_a_short_prompt_leaves_goes_to_the_others():
    scheduler, _ = new_scheduler(budget=9)
    short, long, longer = add(scheduler, *prompts(1, 20, 20))
    assert shares(scheduled(scheduler)) == [(short, 1), (long, 4), (longer, 4)]


def test_a_long_prompt_is_computed_in_chunks_and_then_emits():
    scheduler, _ = new_scheduler(budget=8)
    (state,) = add(scheduler, *prompts(20))
    chunks = []
    while not state.num_output_tokens:
        (row,) = rows = scheduled(scheduler)
        chunks.append((row.num_tokens, row.emits, row.decodes))
        compute(rows)
    assert chunks == [(8, False, False), (8, False, False), (4, True, False)]
    assert [row.decodes for row in scheduled(scheduler)] == [True]


def test_decoding_rows_come_first_with_one_token_each():
    scheduler, _ = new_scheduler(budget=4)
    old, short = add(scheduler, *prompts(40, 1))
    compute(scheduled(scheduler))
    rows = scheduled(scheduler)
    assert shares(rows) == [(short, 1), (old, 3)]
    assert [row.decodes for row in rows] == [True, False]


def test_the_last_tokens_of_all_prompts_of_a_request_are_computed_together():
    scheduler, _ = new_scheduler(budget=6)
    (state,) = add(scheduler, [4, 5, 6, 7, 8], mixture={"guided": 1.0}, contexts={"guided": (9, 5, 6, 7)})
    rounds = []
    while not state.num_output_tokens:
        (row,) = rows = scheduled(scheduler)
        rounds.append(row.counts)
        compute(rows)
    assert rounds == [{"": 4, "guided": 2}, {"": 1, "guided": 2}]


def test_a_decoding_request_computes_the_last_tokens_of_all_its_prompts_whatever_the_budget():
    scheduler, _ = new_scheduler(budget=3)
    guided = {"mixture": {"guided": 1.0}, "contexts": {"guided": (9,)}}
    first, second, third = add(scheduler, [4], [5], [6], **guided)
    assert shares(scheduled(scheduler)) == [(first, 2), (second, 2), (third, 2)]


# Memory


def test_the_youngest_request_is_preempted_and_comes_back():
    scheduler, blocks = new_scheduler(blocks=6)
    old, young = decoding(scheduler, 8, 8)
    (waiting,) = add(scheduler, [99] * 12)
    while not scheduler.preemptions:
        rows = scheduled(scheduler)
        compute(rows)
    assert [row.state for row in rows] == [old]
    assert (scheduler.running, list(scheduler.waiting)) == ([old], [young, waiting])
    assert (young.prompts[""].block_table, young.prompts[""].num_computed_tokens) == ([], 0)
    tokens = list(young.tokens)
    finish(scheduler, old)
    (row,) = scheduled(scheduler)
    assert row.state is young, "a preempted request is ahead of those that have not begun"
    assert young.tokens == tokens, "its answer is not lost"
    assert (row.num_tokens, row.emits) == (len(tokens), True), "all of it is computed again"
    finish(scheduler, young)
    finish(scheduler, waiting)
    assert blocks.num_free_blocks == 6


def test_drafts_are_shortened_to_the_free_memory():
    scheduler, blocks = new_scheduler(blocks=4)
    first, second = decoding(scheduler, 3, 5)  # 4 and 6 tokens now, in 1 and 2 blocks
    lookup = (1, 2, 3, 4, 5)
    scheduler._speculator.drafts = {first: Draft("model", 3), second: Draft("lookup", 5, lookup)}
    drafts = scheduler.schedule({}).drafts
    assert drafts == {first: Draft("model", 3), second: Draft("lookup", 2, lookup)}
    assert blocks.num_free_blocks == 0
    assert [len(state.prompts[""].block_table) for state in (first, second)] == [2, 2]


def test_drafts_that_fit_stay_as_they_are():
    scheduler, _ = new_scheduler()
    drafts = {state: Draft("model", 7) for state in decoding(scheduler, 3, 5)}
    scheduler._speculator.drafts = drafts
    assert scheduler.schedule({}) == Batch(drafts)


# Prefixes


def test_a_request_waits_for_a_beginning_that_is_being_computed():
    scheduler, _ = new_scheduler(budget=6)
    first, same, other = add(scheduler, range(4, 13), range(4, 13), [99])
    rows = scheduled(scheduler)
    assert {row.state for row in rows} == {first, other}
    compute(rows)
    scheduler.cache_full_blocks([first])
    rows = scheduled(scheduler)
    assert same not in scheduler.running, "the second block is being computed still"
    compute(rows)
    scheduler.cache_full_blocks([first])
    assert (same, 1) in shares(scheduled(scheduler))
    assert same.cached_tokens == {"": 8}
    assert scheduler.cached_tokens == 8
    assert same.prompts[""].block_table[:2] == first.prompts[""].block_table[:2]


def test_each_round_looks_once_at_each_beginning_that_many_requests_wait_for(monkeypatch):
    """Each waiting request compared with each running one would be 8 times 200."""
    looked = 0
    block_keys = PromptState.block_keys

    def counted(*args):
        nonlocal looked
        looked += 1
        return block_keys(*args)

    scheduler, _ = new_scheduler(rows=9, budget=8)
    add(scheduler, *prompts(*[20] * 8), *[prompts(20)[0]] * 200)
    scheduled(scheduler)
    assert (len(scheduler.running), len(scheduler.waiting)) == (8, 200)
    monkeypatch.setattr(PromptState, "block_keys", counted)
    scheduled(scheduler)
    assert looked < 2 * 208


def test_cached_blocks_are_taken_but_for_the_last_token():
    scheduler, _ = new_scheduler()
    (first,) = add(scheduler, range(4, 12))
    compute(scheduled(scheduler))
    scheduler.cache_full_blocks([first])
    (same,) = add(scheduler, range(4, 12))
    assert (same, 4) in shares(scheduled(scheduler)), "its second block holds the last token"
    assert same.cached_tokens == {"": 4}


def test_requests_of_other_models_neither_wait_nor_share():
    scheduler, _ = new_scheduler()
    (first,) = add(scheduler, range(4, 13), mixture={"one": 1.0})
    (other,) = add(scheduler, range(4, 13), mixture={"two": 1.0})
    assert shares(scheduled(scheduler)) == [(first, 9), (other, 9)]
