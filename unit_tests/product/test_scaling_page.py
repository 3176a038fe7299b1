"""The tables of docs/scaling.md are those that the commands print."""

import re
import shlex
from pathlib import Path

import pytest
from transformers import AutoConfig
from typer.testing import CliRunner

from benchmarks.estimates import published_speeds
from benchmarks.estimates.public_models import CONFIGS, WEIGHTS, config_of, public_model
from langchain_eft.cli import app
from langchain_eft.diagnostics.plan import Cluster, step_time
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.hub import HubModel, Listing

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```\n\$ langchain-eft (plan .+?--cards .+?)\n(.+?)```", PAGE, re.DOTALL)


@pytest.fixture
def public_configs(monkeypatch):
    """A hub that hands out the configurations of public models and nothing else."""

    def find_checkpoint(source):
        return Checkpoint(str(source), hub=HubModel.parse(str(source)), listing=Listing("c0ffee", {}, None))

    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda name, **_: config_of(name))
    for module in ("diagnostics.plan.recipe_footprints", "engine.loading.layout"):
        monkeypatch.setattr(f"langchain_eft.{module}.find_checkpoint", find_checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "output"), COMMANDS)
def test_plans_are_those_that_the_command_prints(public_configs, command, output):
    printed = CliRunner().invoke(app, shlex.split(command.replace("\\\n", "")), env={"COLUMNS": "110"})
    assert [line.rstrip() for line in printed.stdout.splitlines()] == output.splitlines()


def test_the_page_plans_the_sizes_that_it_promises():
    assert len(COMMANDS) == 2
    commands = " ".join(command for command, _ in COMMANDS)
    for text in ("8b-1b", "70b-8b", "H100", "H200", "B200"):
        assert text in commands


@pytest.mark.slow
@pytest.mark.parametrize("rows", [published_speeds.step_rows, published_speeds.throughput_rows])
def test_tables_of_estimates_are_those_that_the_benchmarks_print(rows):
    assert "\n".join(rows()) in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_public_shapes_have_the_published_number_of_weights(name):
    count = public_model(name).footprint.weights
    assert count.linear + count.other == WEIGHTS[name]


@pytest.mark.slow
def test_estimates_are_as_near_to_measurements_as_the_page_says():
    hopper = [row for row in published_speeds.STEPS if "B200" not in row.cards]
    assert all(-0.2 < row.estimate / row.milliseconds - 1 < 0.1 for row in hopper)
    smaller = [row for row in published_speeds.THROUGHPUTS if "405B" not in row.model]
    largest = [row for row in published_speeds.THROUGHPUTS if "405B" in row.model]
    assert all(-0.15 < row.estimate / row.tokens_per_second - 1 < 0.1 for row in smaller)
    assert all(-0.36 < row.estimate / row.tokens_per_second - 1 < -0.15 for row in largest)


@pytest.mark.slow
def test_one_group_of_eight_cards_beside_two_of_four():
    models = [public_model(f"meta-llama/Llama-3.1-{size}") for size in ("70B", "8B", "8B")]

    def seconds(cards, batch):
        return step_time(models, Cluster.parse(cards), batch, 2048).seconds

    four, eight = (f"{1e3 * seconds(cards, 1):.1f} ms" for cards in ("4xH200", "8xH200"))
    text = " ".join(PAGE.split())
    assert f"takes {four} for a token on four H200s and {eight} on eight" in text
    gains = [seconds("4xH200", batch) / seconds("8xH200", 2 * batch) for batch in (1, 16, 64)]
    assert f"answers {min(gains):.1f} to {max(gains):.1f} times what two groups of four do" in text
