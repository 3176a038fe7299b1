"""The queues of the benchmark, and a run of them."""

import random

from benchmarks.thousand_mixtures import ONE, SETS, WEIGHTS, queues, run

NAMES = ("one", "two", "full")


def test_every_request_of_a_queue_has_a_mixture_of_its_own_or_the_same():
    made = queues(NAMES, 1000, random.Random(0))
    assert [len(made[name]) for name in (ONE, WEIGHTS, SETS)] == [1000] * 3
    assert [len(set(map(repr, made[name]))) for name in (ONE, WEIGHTS, SETS)] == [1, 1000, 1000]
    assert all(set(mixture.active()) == set(NAMES) for mixture in made[WEIGHTS])
    assert {len(mixture.active()) for mixture in made[SETS]} == {1, 2, 3}


def test_a_queue_is_decoded_to_its_end_and_timed(engine):
    before = engine.stats()
    took = run(engine, queues(NAMES, 5, random.Random(0))[SETS], [5, 6, 7], 3)
    assert engine.stats().generated_tokens - before.generated_tokens == 15
    assert took.clock > 0
    assert took.cpu > 0
