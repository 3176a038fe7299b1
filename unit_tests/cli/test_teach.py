import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_eft.cli import app
from langchain_eft.cli.teach import show
from langchain_eft.engine.recipe.behavior_card import BehaviorCard, read_card
from langchain_eft.teaching import TaughtBehavior
from langchain_eft.teaching.verdict import Sample, SweepPoint, TaughtVerdict

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
def test_a_behavior_that_was_not_learned_is_written_without_a_recommendation(arguments, family, tmp_path):
    done = runner.invoke(app, [*arguments, "--style", "yes", "--capitals", "1"])
    assert done.exit_code == 1, done.stderr
    assert "Held-out loss:" in done.stdout
    assert "'yes' was not learned: the small tuned model itself shows the behavior in 0%" in done.stdout
    assert "step 1 of 2" in done.stderr
    rows = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines()]
    assert [row[2:4] for row in rows if row[1:2] == ["0.25"]] == [["0%", "-"]]
    for text in (done.stdout, (tmp_path / "yes" / "README.md").read_text()):
        assert "Recommended weight" not in text
        assert "--mix" not in text
    card = read_card(tmp_path / "yes")
    assert (card.recommended_weight, card.weight_range) == (None, None)
    used = runner.invoke(
        app,
        [
            *("chat", "hi", "--model", str(family.folder / "base"), "--max-tokens", "2"),
            *("--reference", str(family.folder / "reference"), "--behavior", f"yes={tmp_path / 'yes'}"),
        ],
    )
    assert used.exit_code == 0, used.stderr


def test_a_recommendation_is_shown_with_its_command(capsys):
    sweep = (SweepPoint(0, 0, 0.5, 0, 1), SweepPoint(1, 1, 0.5, 1, 1))
    verdict = TaughtVerdict(
        "transfers", "It transfers.", 0.2, 1.0, 0.0, 0.5, sweep, 1.0, (0.75, 1.25), 0.9,
        (Sample(0, "q", "a"),), "answers match 'x'",
    )  # fmt: skip
    card = BehaviorCard(
        name="terse", base="smol", reference="preset:smol", reference_hash="1", source="x.jsonl",
        data_hash="1", license="mit", measured={"loss_before": 2.0, "loss_after": 1.0},
        recommended_weight=1.0,
    )  # fmt: skip
    show(TaughtBehavior(Path("terse"), card, verdict))
    shown = capsys.readouterr().out
    assert "Recommended weight: 1 (0.75 to 1.25)" in shown
    assert "langchain-eft chat --behavior terse=terse --mix terse=1" in shown


@pytest.mark.slow
def test_the_card_as_json(arguments):
    done = runner.invoke(app, [*arguments, "--no-verdict", "--json"])
    card = json.loads(done.stdout)
    assert card["name"] == "yes"
    assert card["settings"]["steps"] == 2
    assert card["recommended_weight"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--describe", "kind"], "and --describe exclude each other"),
        (["--learning-rate", "-1"], "--learning-rate -1.0 must be a positive number"),
        (["--teacher", "openai:gpt-5"], "--teacher 'openai:gpt-5' answers under a description"),
        (["--style", "("], "--style '(' is not a regular expression"),
        (["--resume"], "no training to continue"),
    ],
)
def test_a_mistake_is_one_line(arguments, more, message):
    done = runner.invoke(app, [*arguments, *more])
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_a_mixture_could_not_hold_is_refused_in_the_commands_words():
    done = runner.invoke(app, ["teach", "my house!", "nofile.jsonl"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: NAME 'my house!' cannot be a behavior's name: ")


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("nobody:x", "--teacher 'nobody:x' cannot be used"),
        ("openai:gpt-5", "OPENAI_API_KEY"),
    ],
)
def test_a_teacher_that_cannot_be_asked_is_one_line_and_leaves_nothing(
    teacher, message, tmp_path, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = tmp_path / "x"
    done = runner.invoke(
        app, ["teach", "x", "--describe", "kind", "--teacher", teacher, "--output", str(folder)]
    )
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
