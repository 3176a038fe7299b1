"""Every example runs as it stands, on the real weights, and shows what it promises."""

import importlib.util
import re
from pathlib import Path

import pytest

from langchain_eft.teaching.sources import read_lesson

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
TESTED = {"agent", "chain", "house_style", "mixture_per_step", "own_lora", "serve_many", "trace"}


@pytest.fixture
def run(capsys):
    """Runs an example's `main` and returns the lines that it prints."""

    def lines(name: str, *arguments: str) -> list[str]:
        spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(*arguments)
        return capsys.readouterr().out.splitlines()

    return lines


def test_every_example_is_tested():
    assert {file.stem for file in EXAMPLES.glob("*.py")} == TESTED


def test_the_chain_answers_in_two_styles(run):
    text = "\n".join(run("chain"))
    assert re.findall(r"^(\w+) \((\w+)\): ", text, re.MULTILINE) == [
        (topic, style) for topic in ("whales", "volcanoes") for style in ("concise", "pirate")
    ]
    assert re.search(r"\(pirate\): .*\b(Arr|Ahoy|matey|be|o')", text)


def test_the_agent_calls_its_tool_and_reports_the_result(run):
    call, result, answer = run("agent")
    assert call == "calls multiply({'a': 17, 'b': 23})"
    assert result == "multiply returned 391"
    assert "391" in answer


def test_each_step_of_the_chain_has_its_own_mixture(run):
    steps = dict(line.split(": ", 1) for line in run("mixture_per_step"))
    assert list(steps) == ["topic", "answer", "tale"]
    assert re.fullmatch(r"Whales [^.]*\.", steps["answer"])
    assert re.search(r"\b(Yo ho|ye|th'|o')", steps["tale"])


def test_the_conversations_of_a_house_style_can_be_taught(run, tmp_path):
    file = tmp_path / "house.jsonl"
    assert run("house_style", str(file), 12) == []
    lesson = read_lesson(str(file), 0)
    answers = {example.messages[-1].text for example in (*lesson.train, *lesson.held_out)}
    assert len(answers) == 12
    assert all(re.fullmatch(r"Thanks for asking! .+[.!?] Kind regards, Team Northwind", a) for a in answers)


def test_a_lora_folder_becomes_a_behavior(run):
    off, half, on, both = run("own_lora")
    assert off.startswith("mine=0.0: ")
    assert half.startswith("mine=0.5: ")
    assert len(on) < len(off)  # the LoRA that stands in answers in one sentence
    assert re.search(r"\b(Arr|Ahoy|matey|be|o'|ye|th')", both)


def test_a_trace_says_who_changed_each_token(run, tmp_path):
    page = tmp_path / "trace.html"
    *tokens, wrote = run("trace", str(page))
    assert "' Athens' base" in (token.strip() for token in tokens)
    assert any(token.endswith(" pirate") for token in tokens)
    assert wrote == f"Wrote {page}."
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_twelve_different_requests_are_served_at_once(run):
    *answers, summary = run("serve_many")
    assert len(answers) == 12
    assert re.fullmatch(r"12 answers, \d+ tokens, \d+ tokens/s", summary)
