"""The prefix cache: later requests reuse the blocks of a common prefix until their memory is needed."""

import pytest

from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.engine import Engine
from unit_tests.helpers import Recorder, endless, request, wait_until

BLOCK = 4
PROMPT = [7, 30, 9, 61, 61, 12, 99, 100, 101, 102, 103, 104, 105, 106]


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_old_prompts_are_evicted_for_new_ones(small):
    for i in range(12):
        decode(small, [i + 10, *PROMPT * 2], tokens=10)
    # The last prompt is still cached, the first is not.
    assert decode(small, [21, *PROMPT * 2], tokens=4)[1].cached_tokens == 28
    assert decode(small, [10, *PROMPT * 2], tokens=4)[1].cached_tokens == 0
