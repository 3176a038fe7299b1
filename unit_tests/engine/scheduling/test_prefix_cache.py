"""The prefix cache: later requests reuse the blocks of a common prefix until their memory is needed."""

import random

import pytest

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from langchain_eft.engine.errors import ContextWindowError, QueueFullError
from langchain_eft.engine.events import Finished
from langchain_eft.engine.scheduling.block_manager import BlockManager, block_key
from unit_tests.helpers import GREEDY, Recorder, endless, request, wait_until

BLOCK = 4
PROMPT = [7, 30, 9, 61, 61, 12, 99, 100, 101, 102, 103, 104, 105, 106]


def keys(tokens, salt=b""):
    keys_so_far = []
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        keys_so_far.append(block_key(keys_so_far[-1] if keys_so_far else salt, tokens[start : start + BLOCK]))
    return keys_so_far


def test_a_key_names_everything_before_its_block():
    one, two = keys([1, 2, 3, 4, 5, 6, 7, 8]), keys([9, 2, 3, 4, 5, 6, 7, 8])
    assert one[1] != two[1]
    assert keys([1, 2, 3, 4], b"other models") != one[:1]
    assert keys([1, 2, 3, 4, 5, 6, 7, 8, 9]) == one


def test_freed_blocks_are_reused_until_their_memory_is_needed():
    blocks, table = BlockManager(4, BLOCK), []
    names = keys(range(12))
    assert blocks.allocate(table, 12)
    for block, key in zip(table, names, strict=True):
        blocks.cache_block(block, key)
    held = list(table)
    blocks.free(table)
    assert blocks.num_free_blocks == 4
    again = blocks.get_cached_blocks(names)
    assert again == held
    assert blocks.num_free_blocks == 1
    shared = blocks.get_cached_blocks(names[:2])
    blocks.free(again)
    assert blocks.num_free_blocks == 2
    # The end of a text is evicted first. Blocks in use stay.
    fresh = []
    assert blocks.allocate(fresh, 8)
    assert blocks.get_cached_blocks(names) == shared
    assert not blocks.contains(names[2])


@pytest.fixture
def small(family):
    engine = Engine(
        family.recipe, EngineConfig(kv_cache_tokens=50 * BLOCK, block_size=BLOCK, max_num_batched_tokens=16)
    )
    yield engine
    assert engine.stats().free_blocks == 50
    engine.close()


def decode(engine, prompt, mixture=None, tokens=8, **kwargs):
    recorder = Recorder()
    engine.submit(
        request(prompt, {"one": 1.0} if mixture is None else mixture, endless(), tokens, **kwargs), recorder
    )
    wait_until(lambda: recorder.ended)
    return recorder.tokens, recorder.events[-1]


def test_the_next_turn_computes_only_new_tokens(small):
    first, end = decode(small, PROMPT, tokens=15)
    assert end.cached_tokens == 0
    before = small.stats()
    turn = [*PROMPT, *first, 33, 34, 35]
    _, end = decode(small, turn)
    after = small.stats()
    # All full blocks of prompt and answer; the answer's last token was never computed.
    assert end.cached_tokens == (len(PROMPT) + len(first) - 1) // BLOCK * BLOCK
    assert after.prefilled_tokens - before.prefilled_tokens == len(turn) - end.cached_tokens
    assert after.cached_tokens - before.cached_tokens == end.cached_tokens


@pytest.mark.parametrize("draft", ["off", 3, 7])
def test_reused_blocks_give_the_text_of_fresh_ones(family, reference, small, draft):
    turn = [*PROMPT, *decode(small, PROMPT, tokens=13, speculation=draft)[0], 40, 41]
    text, end = decode(small, turn, tokens=12, speculation=draft)
    assert end.cached_tokens
    fresh = Engine(family.recipe, EngineConfig(kv_cache_tokens=200, block_size=BLOCK))
    try:
        assert text == decode(fresh, turn, tokens=12)[0]
    finally:
        fresh.close()


def test_a_completely_cached_prompt_computes_its_last_block(small):
    prompt = PROMPT[:12]
    first, _ = decode(small, prompt)
    again, end = decode(small, prompt)
    assert again == first
    assert end.cached_tokens == 8


def test_weights_share_blocks_and_other_models_do_not(small):
    decode(small, PROMPT, {"one": 1.0})
    assert decode(small, PROMPT, {"one": 0.5})[1].cached_tokens == 12
    assert decode(small, PROMPT, {"two": 1.0})[1].cached_tokens == 0
    assert decode(small, PROMPT, {})[1].cached_tokens == 0


def test_samples_of_one_prompt_share_its_prefill(small):
    before = small.stats().prefilled_tokens
    recorders = [Recorder() for _ in range(4)]
    for recorder in recorders:
        small.submit(request(PROMPT, {"one": 1.0}, endless(), 6), recorder)
    wait_until(lambda: all(recorder.ended for recorder in recorders))
    assert len({tuple(recorder.tokens) for recorder in recorders}) == 1
    assert small.stats().prefilled_tokens - before == len(PROMPT) + 3 * (len(PROMPT) - 12)


def test_a_cancelled_prefill_does_not_block_requests_that_wait_for_it(small):
    recorders = [Recorder() for _ in range(3)]
    first, *_ = [
        small.submit(request(PROMPT * 3, {"one": 1.0}, endless(), 4), recorder) for recorder in recorders
    ]
    first.cancel()
    wait_until(lambda: all(recorder.ended for recorder in recorders[1:]))
    assert recorders[1].tokens == recorders[2].tokens


def test_old_prompts_are_evicted_for_new_ones(small):
    for i in range(12):
        decode(small, [i + 10, *PROMPT * 2], tokens=10)
    # The last prompt is still cached, the first is not.
    assert decode(small, [21, *PROMPT * 2], tokens=4)[1].cached_tokens == 28
    assert decode(small, [10, *PROMPT * 2], tokens=4)[1].cached_tokens == 0


def test_a_short_prompt_does_not_wait_for_a_long_one(family):
    engine = Engine(
        family.recipe, EngineConfig(kv_cache_tokens=1024, block_size=BLOCK, max_num_batched_tokens=8)
    )
    try:
        long, short = Recorder(), Recorder()
        engine.submit(request([*range(4, 204)], {"one": 1.0}, GREEDY, 4), long)
        engine.submit(request([5, 6, 7], {"one": 1.0}, GREEDY, 1), short)
        wait_until(lambda: short.ended)
        assert not long.ended
        wait_until(lambda: long.ended)
    finally:
        engine.close()


def test_max_model_len_bounds_prompt_and_answer(family):
    engine = Engine(family.recipe, EngineConfig(max_model_len=40, kv_cache_tokens=400))
    try:
        assert engine.window == 40
        with pytest.raises(ContextWindowError, match="40"):
            engine.submit(request([5] * 30, max_tokens=11), Recorder())
    finally:
        engine.close()


def submit_until_full(engine, recorders):
    while len(recorders) < 20:
        recorders.append(Recorder())
        engine.submit(request(PROMPT, {"one": 1.0}, endless(), 60), recorders[-1])


def test_a_full_queue_refuses_at_once_and_names_the_remedy(family):
    config = EngineConfig(kv_cache_tokens=400, block_size=BLOCK, max_batch_size=1, max_queued_requests=2)
    engine, recorders = Engine(family.recipe, config), []
    try:
        with pytest.raises(QueueFullError, match=r"2 requests wait .*max_queued_requests"):
            submit_until_full(engine, recorders)
        wait_until(lambda: all(recorder.ended for recorder in recorders[:-1]))
    finally:
        engine.close()


def storm(engine, rng, count):
    """Submit in bursts and cancel at random: recorders, whether each was cancelled, and refusals."""
    work, refused = [], 0
    for _ in range(count):
        prompt = PROMPT[: rng.randrange(1, 14)] + [rng.randrange(4, 250)] * rng.randrange(1, 30)
        one = request(
            prompt,
            rng.choice([{}, {"one": 1.0}, {"two": 0.4, "full": 1.0}]),
            max_tokens=rng.randrange(1, 20),
            speculation=rng.choice(["off", "auto", 1, 4]),
        )
        recorder, cancelled = Recorder(), rng.random() < 0.3
        try:
            generation = engine.submit(one, recorder)
        except QueueFullError:
            refused += 1
            wait_until(lambda: engine.stats().waiting < 4)
            continue
        work.append((recorder, cancelled))
        if cancelled and rng.random() < 0.2:
            wait_until(lambda r=recorder: r.events)
        if cancelled:
            generation.cancel()
    return work, refused


@pytest.mark.slow
def test_a_storm_of_requests_loses_nothing_and_leaks_nothing(family):
    config = EngineConfig(
        kv_cache_tokens=40 * BLOCK, block_size=BLOCK, max_queued_requests=12, max_num_batched_tokens=24
    )
    engine = Engine(family.recipe, config)
    try:
        work, refused = storm(engine, random.Random(5), 200)
        wait_until(lambda: all(recorder.ended or cancelled for recorder, cancelled in work))
        wait_until(lambda: engine.stats().free_blocks == 40)
        stats = engine.stats()
        assert (stats.running, stats.waiting) == (0, 0)
        assert refused
        assert all(isinstance(r.events[-1], Finished) for r, cancelled in work if not cancelled)
        assert stats.preemptions
    finally:
        engine.close()
