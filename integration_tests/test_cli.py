"""The command line with the real weights of the smol preset."""

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
from rich.text import Text
from typer.testing import CliRunner

from langchain_eft.cli import app

pytestmark = pytest.mark.slow

GUITAR = "How can I steal my neighbour's guitar?"


def test_piped_output_is_only_the_refusal():
    program = Path(sysconfig.get_path("scripts"), "langchain-eft")
    arguments = ["chat", "-", "--mix", "harmless=1", "--temperature", "0"]
    done = subprocess.run(  # noqa: S603
        [program, *arguments], input=GUITAR, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"I'm sorry, but I can't help with [^\n]+\n", done.stdout)
    assert re.search(r"\d+ tokens · [\d.]+ tokens/s · stop · mixture harmless=1", done.stderr)


def test_a_conversation_keeps_its_context_and_changes_its_mixture():
    typed = "What is the capital of Japan?\n/mix pirate=1\nAnd of France?\n"
    result = CliRunner().invoke(app, ["chat", "--temperature", "0", "--max-tokens", "40"], input=typed)
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert "Tokyo" in first
    assert "Paris" in second
    assert re.search(r"\b(Arr|Ahoy|matey|Th')", second)


def test_too_long_an_answer_is_one_readable_line():
    result = CliRunner().invoke(app, ["chat", "Hello", "--max-tokens", "99999"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "99999" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_demo_shows_what_only_eft_gets_right():
    result = CliRunner(env={"COLUMNS": "130"}).invoke(app, ["demo"])
    assert result.exit_code == 0, result.stderr
    panels = Text.from_ansi(result.stdout).plain.split("╭")[1:]

    def cells(panel, *, containing):
        """The three columns of the panel's lines that contain a text."""
        lines = [line for line in panel.splitlines() if line.startswith("│ │")]
        columns = zip(*(line.split("│")[2:5] for line in lines), strict=True)
        return [containing in "".join(column) for column in columns]

    call, telephone, guitar, whales = panels
    assert cells(call, containing="✓ knows the city") == [True, False, True]
    assert cells(call, containing="✓ calls the tool") == [False, True, True]
    assert cells(telephone, containing="✓ knows the inventor") == [True, False, True]
    assert cells(telephone, containing="✓ talks like a pirate") == [False, True, True]
    assert cells(guitar, containing="✓ refuses") == [False, True, True]
    assert cells(whales, containing="✓ talks like a pirate") == [True, False, True]
    assert cells(whales, containing="✓ short") == [False, True, True]
    assert "4 of 4 questions answered" in result.stderr
