"""Commands that let a server decode."""

import json

import pytest
from typer.testing import CliRunner

from langchain_eft import EFTChatModel
from langchain_eft.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_chat_answers(served):
    done = run("chat", "hi", "--base-url", served, "--temperature", 0, "--max-tokens", 6, "--mix", "two=1")
    assert done.exit_code == 0, done.stderr
    expected = EFTChatModel(base_url=served, temperature=0, max_tokens=6, mixture={"two": 1.0}).invoke("hi")
    assert done.stdout.strip() == expected.content.strip()
    assert "mixture two=1" in done.stderr


def test_trace_shows_who_wrote_what(served):
    done = run("trace", "hi", "--base-url", served, "--max-tokens", 4, "--json")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["tokens"]) == 4


@pytest.mark.slow
def test_eval_measures_a_server(served, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "hi"}\n')
    options = ("--system", "eft", "--system", "two=1", "--max-tokens", 4, "--json")
    done = run("eval", file, "--base-url", served, *options)
    assert done.exit_code == 0, done.stderr
    assert "two=1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("chat", "hi", "--base-url", "nowhere"), "base URL"),
        (("chat", "hi", "--base-url", "http://127.0.0.1:9", "--device", "cpu"), "device"),
        (("chat", "hi", "--tokenizer", "folder"), "goes with --base-url"),
    ],
)
def test_what_does_not_go_together_is_one_line(arguments, said):
    done = run(*arguments)
    assert done.exit_code == 1
    assert said in done.stderr
    assert "Traceback" not in done.output
