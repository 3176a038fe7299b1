import json

import pytest
from typer.testing import CliRunner

from langchain_eft.cli import app

runner = CliRunner()


@pytest.fixture
def talk(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "yes!"}]}
        for i in range(12)
    ]
    (tmp_path / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "talk.jsonl"


@pytest.fixture
def arguments(family, talk, tmp_path):
    models = ["--model", str(family.folder / "base"), "--reference", str(family.folder / "reference")]
    return ["teach", "yes", str(talk), *models, "--output", str(tmp_path / "yes"), "--steps", "2"]


@pytest.mark.slow
def test_a_behavior_is_taught_judged_and_used(arguments, family, tmp_path):
    done = runner.invoke(app, [*arguments, "--style", "yes", "--capitals", "1"])
    assert done.exit_code == 0, done.stderr
    assert "Held-out loss:" in done.stdout
    assert "Recommended weight:" in done.stdout
    assert "step 1 of 2" in done.stderr
    used = runner.invoke(
        app,
        [
            *("chat", "hi", "--model", str(family.folder / "base"), "--max-tokens", "2"),
            *("--reference", str(family.folder / "reference"), "--behavior", f"yes={tmp_path / 'yes'}"),
        ],
    )
    assert used.exit_code == 0, used.stderr


def test_the_card_as_json(arguments):
    done = runner.invoke(app, [*arguments, "--no-verdict", "--json"])
    card = json.loads(done.stdout)
    assert card["name"] == "yes"
    assert card["settings"]["steps"] == 2
    assert card["recommended_weight"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--describe", "kind"], "either a source or `describe`"),
        (["--learning-rate", "-1"], "learning_rate must be a positive number"),
        (["--teacher", "nobody:x"], "--teacher 'nobody:x' cannot be used"),
        (["--resume"], "no training to continue"),
    ],
)
def test_a_mistake_is_one_line(arguments, more, message):
    done = runner.invoke(app, [*arguments, *more])
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
