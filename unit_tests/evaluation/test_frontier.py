"""Frontiers and figures."""

import sys
import xml.etree.ElementTree as ET

import pytest
from langchain_core.messages import HumanMessage

from langchain_eft.errors import MissingPlotsError
from langchain_eft.evaluation import (
    Case,
    Estimate,
    EvaluationError,
    Length,
    Mentions,
    Runner,
    System,
    Task,
    frontier,
    plot_bars,
    plot_frontier,
    plot_sweep,
)
from langchain_eft.evaluation.frontier import pareto
from unit_tests.evaluation.scripted import Scripted


def test_pareto_keeps_what_nothing_beats():
    points = [(1, 1), (2, 1), (1, 2), (2, 0), (0, 0), (2, 1)]
    assert pareto(points) == [False, True, True, False, False, True]


def saying(text):
    return System(text or "nothing", Scripted(reply=lambda messages, **_: text, label=text))


@pytest.fixture(scope="module")
def evaluation():
    cases = (Case("1", (HumanMessage("?"),), "yes"),)
    tasks = [
        Task("long", cases, (Length(higher_is_better=False),)),
        Task("right", cases, (Mentions(), Length())),
    ]
    return Runner().evaluate([saying("yes"), saying("yes, yes"), saying("no")], tasks)


def test_less_may_be_better(evaluation):
    found = frontier(evaluation, ("long", None), ("right", "correct"))
    assert {p.system: p.optimal for p in found.points} == {"yes": True, "yes, yes": False, "no": True}
    assert (found.x.higher_is_better, found.y.higher_is_better) == (False, True)


def test_some_systems_only(evaluation):
    found = frontier(evaluation, ("long", None), ("right", None), ["yes, yes"])
    assert [(p.system, p.optimal) for p in found.points] == [("yes, yes", True)]


def test_somebody_has_to_say_what_is_better(evaluation):
    with pytest.raises(EvaluationError, match="better="):
        frontier(evaluation, ("right", "length"), ("right", None))
    found = frontier(evaluation, ("right", "length"), ("right", None), better=(True, None))
    assert [p.optimal for p in found.points] == [False, True, False]


def test_figures_of_frontiers(evaluation, tmp_path):
    found = frontier(evaluation, ("long", None), ("right", None))
    plot_frontier(found, tmp_path / "one.svg", "A title")
    plot_frontier({"first": found, "second": found}, tmp_path / "two.png")
    assert ET.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")  # noqa: S314
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_numbers_give_the_same_file(evaluation, tmp_path):
    found = frontier(evaluation, ("long", None), ("right", None))
    for name in ("a.svg", "b.svg"):
        plot_frontier(found, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_sweeps_and_bars(tmp_path):
    some = [Estimate(0.2, 0.1, 0.4, 10), Estimate(0.5, float("-inf"), float("inf"), 1)]
    plot_sweep([0, 1], {"facts": some}, tmp_path / "s.svg", xlabel="x", ylabel="y", percent=True)
    plot_bars({"a": {"one": some[0]}, "b": {"one": some[0], "two": some[1]}}, tmp_path / "b.svg", ylabel="y")
    assert (tmp_path / "s.svg").stat().st_size > 1000
    assert (tmp_path / "b.svg").stat().st_size > 1000


def test_figures_have_known_kinds(evaluation, tmp_path):
    found = frontier(evaluation, ("long", None), ("right", None))
    with pytest.raises(EvaluationError, match=r"neither \.png nor \.svg"):
        plot_frontier(found, tmp_path / "a.txt")


def test_figures_need_matplotlib(evaluation, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPlotsError, match=r"langchain-eft\[plots\]"):
        plot_bars({"a": {"one": Estimate(1, 1, 1, 1)}}, tmp_path / "b.svg", ylabel="y")
