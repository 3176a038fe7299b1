"""How long a refused request is told to wait."""

from dataclasses import replace

import pytest

from langchain_eft.engine.stats import EngineStats
from langchain_eft.server.monitoring.queue_clock import QueueClock

IDLE = EngineStats(**dict.fromkeys(EngineStats.__dataclass_fields__, 0))


def clock(seconds, **stats):
    made = QueueClock(lambda: replace(IDLE, **stats))
    for each in seconds:
        made.answered(each)
    return made


@pytest.mark.parametrize(
    ("seconds", "running", "waiting", "wait"),
    [
        ([], 16, 1024, 1),  # nothing is known yet
        ([2.0], 4, 16, 4),  # two answers begin in a second, so half of the queue has begun after four
        ([1.0, 3.0], 4, 16, 4),
        ([0.01], 16, 10, 1),
        ([600.0], 1, 1024, 60),  # clients do not wait longer
        ([2.0], 0, 4, 4),
    ],
)
def test_the_wait_is_that_for_half_of_the_queue(seconds, running, waiting, wait):
    assert clock(seconds, running=running, waiting=waiting).retry_after() == wait


def test_only_recent_answers_count():
    assert clock([1000.0] * 10 + [1.0] * 64, running=1, waiting=8).retry_after() == 4


def test_an_engine_that_is_not_open_has_no_queue():
    made = QueueClock(lambda: None)
    made.answered(100)
    assert made.retry_after() == 1
