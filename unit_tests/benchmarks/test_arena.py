"""Turns, scores and tables of contestants. The tests check what is counted, not the speed."""

import json
import time

import pytest

from benchmarks.rivals.arena import Score, Worker, agreement, merge_results, play, table
from benchmarks.rivals.family import Prompts
from benchmarks.rivals.lineup import BASELINE
from benchmarks.rivals.result import Result
from benchmarks.rivals.rival import Rival


def make_result(tokens, seconds, passes=10, acceptance_rate=None):
    return Result(tokens, seconds, 0.1, passes, acceptance_rate, [[1] * tokens])


def test_prompts_are_new_every_time(small_family):
    prompts = Prompts(small_family)
    taken = [*prompts.take(2), *prompts.take(16)]
    assert len({tuple(prompt) for prompt in taken}) == 18
    assert taken == [*(again := Prompts(small_family)).take(2), *again.take(16)]


def test_scores_compare_within_a_round():
    score = Score(
        "x", 1, (make_result(10, 1.0), make_result(10, 4.0)), (make_result(10, 2.0), make_result(10, 2.0))
    )
    assert (score.ratio.low, score.ratio.high) == (0.5, 2.0)
    assert score.speed.median == (10 + 2.5) / 2
    assert score.tokens_per_pass == 1.0
    assert "answers" not in score.summary()["rounds"][0]


def test_batches_of_one_round_add_up():
    both = merge_results([make_result(10, 1.0, 5, 0.5), make_result(20, 2.0, 5, 1.0)])
    assert (both.tokens, both.seconds, both.passes, both.acceptance_rate) == (30, 3.0, 10, 0.75)
    assert len(both.answers) == 2
    assert merge_results([make_result(1, 1.0)]).acceptance_rate is None


class Player:
    """A process that records the prompts that it gets."""

    def __init__(self, log):
        self._log = log

    def decode(self, prompts, tokens, temperature, seed, *, name, speed=1.0, token=1):
        self._log.append((name, prompts))
        count = len(prompts) * (tokens - 1)
        answers = [[token] * tokens for _ in prompts]
        return Result(count, count / speed, 0.1, count, None, answers)


def rival(name, **options):
    return Rival(name, "players", Player, options={"name": name, **options})


def test_rivals_take_turns_with_the_same_prompts(small_family):
    a, b, log = rival("a"), rival("b", speed=3.0), []
    scores = play(dict.fromkeys((a, b), Player(log)), small_family, 2, a)
    assert [(score.name, score.requests) for score in scores] == [("a", 1), ("b", 1), ("a", 16), ("b", 16)]
    assert all(len(score.results) == len(score.baselines) == 2 for score in scores)
    assert [score.ratio.median for score in scores] == pytest.approx([1, 3, 1, 3])
    alone = [(name, tuple(map(tuple, prompts))) for name, prompts in log if len(prompts) == 1]
    assert {seen for name, seen in alone if name == "a"} == {seen for name, seen in alone if name == "b"}
    assert len(set(alone)) == len(alone)
    assert [name for name, _ in alone[::2]] == ["b", "a", "a", "b", "b", "a"], "who is first changes"


def test_every_number_of_requests_is_measured_once_when_the_time_is_over(small_family):
    a, log = rival("a"), []
    scores = play({a: Player(log)}, small_family, 5, a, deadline=time.monotonic() - 1)
    assert [(score.requests, len(score.results)) for score in scores] == [(1, 1), (16, 1)]


def test_agreement_ends_at_the_first_difference(small_family):
    a, same, other = rival("a"), rival("b"), rival("c", token=2)
    workers = dict.fromkeys((a, same, other), Player([]))
    assert agreement(workers, a, same, small_family) == 1
    assert agreement(workers, a, other, small_family) == 0


def test_the_table_is_markdown(small_family):
    a = rival("a")
    scores = play({a: Player([])}, small_family, 1, a)
    report = {
        "family": "f", "tokens": 8, "temperature": 0, "baseline": "a", "greedy_agreement": 1.0,
        "twins": ["a", "b"], "rounds": 1, "cpu_time": True,
        "machine": {"processor": "p", "cores": 2, "threads": 1},
        "scores": [score.summary() for score in scores],
    }  # fmt: skip
    lines = table(json.loads(json.dumps(report))).splitlines()
    assert "tokens/CPU s" in lines[4]
    assert lines[-1] == "| 16 | a | 1.0 | 1.00 (1.00-1.00) | 100 ms | 1.00 | - |"


@pytest.mark.full
def test_a_worker_answers_over_its_pipe(small_family):
    with Worker(BASELINE, small_family) as worker:
        assert worker.about["threads"] >= 1
        assert worker.about["transformers"]
        result = worker.decode(Prompts(small_family).take(1), 5, 0.0, 0)
    assert result.tokens == 4
    with pytest.raises(RuntimeError, match="'players' has died"):
        Worker(rival("nobody"), small_family)
