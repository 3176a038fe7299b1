"""Turns: who goes first, what is dropped, and when they end."""

import time

from langchain_eft.diagnostics.bench import Spread, take_turns


def test_the_first_place_changes_and_rounds_to_warm_up_are_dropped():
    log = []
    contestants = {name: lambda turn, name=name: log.append(f"{name}{turn}") or turn for name in "abc"}
    assert take_turns(contestants, 3) == {"a": [0, 1, 2], "b": [0, 1, 2], "c": [0, 1, 2]}
    assert log == ["c-1", "a-1", "b-1", "a0", "b0", "c0", "b1", "c1", "a1", "c2", "a2", "b2"]


def test_the_first_round_is_finished_after_the_deadline_and_no_other_begins():
    assert take_turns({"a": lambda turn: turn}, 3, deadline=time.monotonic() - 1) == {"a": [0]}


def test_a_spread_is_shown_with_its_extremes():
    spread = Spread.of_ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert f"{spread:.1f}" == "2.0 (1.0-3.0)"
