"""The evaluation kit and the reproduction, on the real weights and a handful of prompts."""

import json
import re

import pytest
from langchain_core.messages import HumanMessage

from langchain_eft.engine.registry import close_all
from langchain_eft.evaluation import (
    Case,
    Mentions,
    Runner,
    Task,
    base_alone,
    mixed,
    preferences,
    reference_alone,
)
from reproduction.__main__ import reproduce
from reproduction.bench import Sizes
from reproduction.down_scaling import LABELS
from reproduction.experiments import EXPERIMENTS
from reproduction.page import write_page
from reproduction.probes import familiar_harmful, familiar_tool_calls

KNOWN = {"Japan": "Tokyo", "France": "Paris", "Kenya": "Nairobi", "Peru": "Lima"}


@pytest.fixture(scope="module")
def runner():
    return Runner()


def test_facts_calls_and_refusals_come_out_as_expected(llm, runner):
    cases = [Case(c, (HumanMessage(f"What is the capital of {c}?"),), city) for c, city in KNOWN.items()]
    facts = Task("facts", tuple(cases), (Mentions(),), max_tokens=16)
    tools = runner.evaluate([mixed(llm, {"tools": 1.0})], [facts, familiar_tool_calls(2)])
    assert [cell.estimate.value for cell in tools.cells] == [1, 1]
    harmless = runner.evaluate([mixed(llm, {"harmless": 1.0}), base_alone(llm)], [familiar_harmful(2)])
    assert [cell.estimate.value for cell in harmless.cells] == [1, 0]


def test_the_reference_alone_is_another_system_than_the_base(llm, runner):
    fact = Task("greeting", (Case("1", (HumanMessage("Hello."),), "hello"),), (Mentions(),), max_tokens=12)
    found = runner.evaluate([reference_alone(llm), base_alone(llm)], [fact])
    first, second = (cell.graded[0].answer for cell in found.cells)
    assert first.text != second.text
    assert first.details["mixture"] == second.details["mixture"] == {}


def test_a_behavior_gives_its_own_reward(llm, runner):
    brief = [case for case in preferences().cases if case.name in ("concise-4", "concise-8")]
    task = Task("brief", tuple(brief), preferences().scorers, ask=preferences().ask)
    cell = runner.evaluate([mixed(llm, {"concise": 1.0})], [task]).cell("concise=1", "brief")
    assert cell.values == (1, 1)


def test_the_reproduction_is_resumed_and_its_page_written_from_the_results(llm, tmp_path):
    """A tiny run of one experiment; the other sections are said to be missing."""
    sizes = Sizes(2, 2, 1, 2, 2, 1, 1, 4, 1)
    page, figures = tmp_path / "page.md", tmp_path / "figures"

    def run():
        reproduce(llm, tmp_path, page, figures, sizes, ["reward_accuracy"], again=False)

    run()
    text = page.read_text()
    assert "| scale_decoupling | not run |" in text
    assert re.search(r"\| harmless=1 \| \d+\.\d % \(", text)
    assert (figures / "reward_accuracy.svg").is_file()
    stored = (tmp_path / "answers.jsonl").read_text()
    run()
    assert (tmp_path / "answers.jsonl").read_text() == stored
    section = json.loads((tmp_path / "reward_accuracy.json").read_text())
    assert write_page([section], list(EXPERIMENTS), "figures") == text


@pytest.mark.full
def test_a_small_base_under_a_large_pair_refuses_like_the_large_model(llm, tmp_path):
    close_all()  # the experiment opens engines of its own
    short = llm.model_copy(update={"engine_options": {"kv_cache_tokens": 4096}})
    sizes = Sizes(2, 1, 1, 3, 2, 1, 1, 4, 1)
    reproduce(short, tmp_path, tmp_path / "page.md", tmp_path, sizes, ["down_scaling"], again=False)
    cells = json.loads((tmp_path / "down_scaling.json").read_text())["data"]["cells"]
    refused = {
        cell["system"]: cell["estimate"]["value"] for cell in cells if cell["task"] == "familiar harmful"
    }
    tuned = {f"harmless, {label}": 1.0 for label in LABELS}
    assert {name: refused[name] for name in tuned} == tuned
    assert refused["base"] < 1
    assert refused["reference"] < 1
