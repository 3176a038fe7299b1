"""`langchain-eft eval` on a tiny family, with judges that are told what to say."""

import json

import pytest
from typer.testing import CliRunner

from langchain_eft.cli import app
from unit_tests.evaluation.scripted import Scripted


@pytest.fixture
def judges(monkeypatch):
    """Judges by name; the first says 10, the second 20, and both prefer whatever stands first."""
    grades = {"fake:one": 10, "fake:two": 20}
    asked = []

    def hosted(text, option):
        asked.append((text, option))

        def reply(messages, **_):
            if "<answer of A>" in messages[-1].text:
                return json.dumps({"reason": "r", "verdict": "A"})
            return json.dumps({"reason": "r", "score": grades[text]})

        return Scripted(reply=reply, label=text)

    monkeypatch.setattr("langchain_eft.evaluation.hosted.hosted", hosted)
    return asked


@pytest.fixture
def task(tmp_path):
    file = tmp_path / "own.jsonl"
    rows = [json.dumps({"prompt": text, "expected": "x"}) for text in ("ab", "cd", "ef")]
    file.write_text("\n".join(rows))
    return str(file)


@pytest.fixture
def recipe(family):
    folder = family.folder
    return [
        "--model", str(folder / "base"), "--behavior", f"one={folder / 'one'}",
        "--behavior", f"two={folder / 'two'}", "--mix", "one=1", "--max-tokens", "4",
    ]  # fmt: skip


def run(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["eval", *arguments])


def test_results_are_kept_and_resumed(recipe, task, tmp_path):
    output = tmp_path / "run"
    first = run(task, *recipe, "--output", str(output), "--sweep", "two=0,1", "--limit", "2")
    assert first.exit_code == 0, first.output
    answers = (output / "answers.jsonl").read_text()
    assert len(answers.splitlines()) == 4
    assert "| two=1 |" in (output / "results.md").read_text()
    assert len(json.loads((output / "results.json").read_text())["cells"]) == 2
    refused = run(task, *recipe, "--output", str(output))
    assert refused.exit_code == 1
    assert "--resume" in refused.output
    again = run(task, *recipe, "--output", str(output), "--sweep", "two=0,1", "--limit", "2", "--resume")
    assert again.exit_code == 0
    assert (output / "answers.jsonl").read_text() == answers


@pytest.mark.slow
def test_judges_comparisons_and_a_frontier(recipe, task, tmp_path, judges):
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "gh", "refuse": true}\n')
    result = run(
        task, task.replace("own", "other"), *recipe, "--system", "base", "--system", "one=1,two=0.5",
        "--judge", "fake:one", "--judge", "fake:two", "--rubric", "helpfulness", "--against", "base",
        "--output", str(tmp_path / "run"), "--frontier", "own,own:helpfulness by fake:one",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "helpfulness by fake:one" in result.output
    assert "10 %" in result.output.replace("10.0 %", "10 %")
    assert "one=1,two=0.5 against base (helpfulness, own): wins 50.0 %" in result.output
    assert "Judges on helpfulness: 0% equal" in result.output
    assert (tmp_path / "run" / "frontier.svg").is_file()


def test_gates_and_nudging_are_systems(recipe, task, family):
    systems = ["one=1/below0.2", "nudged:one"]
    options = ["--reference", str(family.folder / "reference"), "--limit", "1", "--json"]
    result = run(task, *recipe, *options, *(f"--system={each}" for each in systems))
    assert result.exit_code == 0, result.output
    assert [cell["system"] for cell in json.loads(result.stdout)["cells"]] == systems


def test_json_is_all_that_is_printed(recipe, task):
    result = run(task, *recipe, "--system", "reference", "--system", "tuned:one", "--limit", "1", "--json")
    assert result.exit_code == 0, result.output
    cells = json.loads(result.stdout)["cells"]
    assert [cell["system"] for cell in cells] == ["reference", "tuned:one"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.jsonl"], "'nothing.jsonl' is neither built in nor a file that can be read"),
        (["--system", "large"], "--system 'large' is unknown"),
        (["--system", "tuned:three"], "three"),
        (["--system", "nudged:three"], "Nudging by 'three' needs a small model"),
        (["--system", "one=1/below7"], "a confidence of 7"),
        (["--sweep", "three=1,2"], "'one', 'two', 'upscale_strength', 'upscale_top_p'"),
        (["--sweep", "one=a"], "--sweep 'one=a' is not a sweep"),
        (["--rubric", "beauty", "--judge", "self"], "'beauty' is unknown"),
        (["--against", "base"], "add --judge"),
        (["--frontier", "a,b"], "name a folder"),
        (["--frontier", "a,b", "--output", "x"], "write TASK,TASK"),
        (["--resume"], "nothing to resume"),
        (["--judge", "nobody:nothing"], "--judge 'nobody:nothing' cannot be used"),
        (["--judge", "openai:gpt-5"], "OPENAI_API_KEY"),
        (["--system", "openai:gpt-5"], "OPENAI_API_KEY"),
    ],
)
def test_what_cannot_be_understood_is_one_line(recipe, task, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    first = [] if arguments[0].endswith(".jsonl") else [task]
    result = run(*first, *arguments, *recipe)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "x").exists()
