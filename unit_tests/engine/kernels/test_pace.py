"""The number of threads of a program."""

import pytest

from langchain_eft.engine.kernels.pace import Pace


def used(pace, seconds_of, runs):
    """The numbers of some runs whose times are those of a function of the number."""
    numbers = []
    for _ in range(runs):
        numbers.append(pace.threads())
        pace.note(numbers[-1], seconds_of(numbers[-1]))
    return numbers


@pytest.mark.parametrize("fastest", [1, 3, 6])
def test_most_runs_have_the_number_that_is_fastest(fastest):
    pace = Pace(6)
    used(pace, lambda threads: 1 + abs(threads - fastest), 300)
    numbers = used(pace, lambda threads: 1 + abs(threads - fastest), 640)
    assert numbers.count(fastest) >= 630
    assert set(numbers) > {fastest}


def test_a_machine_that_becomes_busy_and_quiet_again_is_noticed():
    pace = Pace(2)
    assert used(pace, lambda threads: 1 / threads, 300)[-1] == 2
    assert used(pace, lambda threads: threads, 300)[-1] == 1
    assert used(pace, lambda threads: 1 / threads, 300)[-1] == 2


def test_one_slow_run_changes_nothing_for_long():
    pace = Pace(2)
    used(pace, lambda threads: 1 / threads, 100)
    pace.note(2, 10.0)
    assert used(pace, lambda threads: 1 / threads, 40)[-1] == 2


def test_one_thread_stays_alone():
    assert set(used(Pace(1), lambda threads: 1.0, 200)) == {1}
