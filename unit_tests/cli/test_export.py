"""`langchain-eft export`: options, the printed line, and errors in a line."""

import json
import shlex

import pytest
from typer.testing import CliRunner

from langchain_eft.cli import app
from langchain_eft.vllm.section import EFTSection


@pytest.fixture
def run(family):
    recipe = ["--model", family.folder / "base", "--behavior", f"house={family.folder / 'one'}"]

    def run(*arguments):
        return CliRunner().invoke(app, ["export", *map(str, [*recipe, *arguments])])

    return run


def test_the_line_is_the_result_and_the_rest_is_a_note(run, tmp_path):
    result = run(tmp_path / "served", "--mix", "house=0..1/8")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"vllm serve {tmp_path / 'served'} ")
    assert "are links to the models' own files, 0 bytes are copies" in result.stderr
    section = EFTSection.of(json.loads((tmp_path / "served" / "config.json").read_text()))
    assert section.default_mixture.weights["house"].tokens == 8


def test_the_line_may_be_used_from_anywhere(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("served", "--draft", "house")
    words = shlex.split(result.stdout)
    assert words[3:6] == [str(tmp_path / "served"), "--served-model-name", "served"]
    assert json.loads(words[-1])["model"].startswith(str(tmp_path / "served"))


def test_options_of_vllm_are_in_the_line(run, tmp_path):
    words = shlex.split(run(tmp_path / "served", "--tensor-parallel", 2, "--quantization", "fp8").stdout)
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    assert words[words.index("--quantization") + 1] == "fp8"


def test_a_folder_has_to_be_named(run):
    result = run()
    assert result.exit_code == 2
    assert "missing argument 'folder'" in result.stderr.lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["served", "--behavior", "guided=prompt:Be brief.", "--mix", "house=1"],
            "'guided' has prompt='Be brief.'",
        ),
        (["served", "--mix", "garden=1"], "Unknown behavior 'garden'"),
        (["served", "--draft", "garden"], "'garden' is not a behavior"),
        (["served", "--tensor-parallel", 3], "3 ranks cannot share"),
        (["no/such/parent"], "'no/such' is not a folder: create it"),
    ],
)
def test_what_cannot_be_exported_is_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in " ".join(result.stderr.split())
