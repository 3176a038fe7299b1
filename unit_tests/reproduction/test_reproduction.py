"""Every experiment of the reproduction runs on a tiny family, and the page has its results."""

import json
import re
import shutil

import pytest
from transformers import LlamaForCausalLM

from langchain_eft import BehaviorDelta, EFTChatModel
from langchain_eft.diagnostics import bench as benchmark
from reproduction.__main__ import ROOT, main, reproduce
from reproduction.bench import Sizes
from reproduction.experiments import EXPERIMENTS
from reproduction.page import write_page
from unit_tests.oracle.adapters import write_adapter

SIZES = Sizes(capitals=2, tools=1, swept_tools=1, requests=1, swept_requests=1, chat=1, pairs=1, tokens=4,
              repetitions=1)  # fmt: skip


@pytest.fixture(scope="module")
def llm(family, tmp_path_factory):
    """The tiny family under the names of the bundled one, with room for tools in a byte-level vocabulary."""
    folder = tmp_path_factory.mktemp("long") / "family"
    shutil.copytree(family.folder, folder)
    for file in folder.glob("*/config.json"):
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "max_position_embeddings": 8192}))
    behaviors = {"tools": "one", "concise": "two", "harmless": "one", "pirate": "two"}
    return EFTChatModel(
        model=str(folder / "base"),
        behaviors={
            name: BehaviorDelta(adapter=str(folder / adapter), reference=str(folder / "reference"))
            for name, adapter in behaviors.items()
        },
        mixture={"tools": 1.0},
        temperature=0,
        engine_options={"kv_cache_tokens": 32768},
    )


@pytest.fixture(scope="module")
def large_adapters(llm, tmp_path_factory):
    """Adapters of the tiny base itself."""
    base, folder = LlamaForCausalLM.from_pretrained(llm.model), tmp_path_factory.mktemp("large")
    for name in ("concise", "harmless"):
        write_adapter(folder / name, base, ["self_attn.q_proj", "mlp.down_proj"], 2)
    return folder


@pytest.fixture
def run(llm, large_adapters, tmp_path, monkeypatch):
    """Runs experiments, and returns the text of the page and the figures."""
    machine = benchmark.Machine("a processor", 2, 1, "cpu", 1e9)
    monkeypatch.setattr("langchain_eft.diagnostics.bench.report.measure_machine", lambda _: machine)

    def experiments(*only):
        page, figures = tmp_path / "page.md", tmp_path / "figures"
        reproduce(llm, tmp_path, page, figures, SIZES, list(only), again=False, large_adapters=large_adapters)
        text = page.read_text()
        assert {*re.findall(r"\]\(figures/(\w+\.svg)\)", text)} == {
            file.name for file in figures.glob("*.svg")
        }
        return text

    return experiments


@pytest.mark.slow
def test_experiments_that_are_done_are_not_run_again(run, tmp_path):
    text = run("reward_accuracy")
    assert text.count("\n## ") == 1
    assert text.count("| not run |") == len(EXPERIMENTS) - 1
    answers = (tmp_path / "answers.jsonl").read_text()
    assert run("reward_accuracy") == text
    assert (tmp_path / "answers.jsonl").read_text() == answers


@pytest.mark.full
def test_the_page_has_every_experiment(run):
    text = run()
    assert text.count("\n## ") == text.count(".svg)") == len(EXPERIMENTS)
    assert "not run" not in text
    # The page has the numbers of the paper next to ours.
    assert all(number in text for number in ("0.289", "0.43 to 1.04", "(8.3, 47)", "2.48"))
    for line in text.splitlines():
        if line.startswith("| ") and "---" not in line:
            assert "None" not in line
            assert " nan " not in line


RUN = {"machine": "m", "day": "2030-01-01", "seconds": 60, "cpu_seconds": 30, "load": 1.0, "cores": 2}
SECTION = {
    "name": "one", "title": "One", "question": "Why?", "tables": ["| a |"], "figure": "one.svg",
    "findings": ["So."], "data": {}, "run": RUN,
}  # fmt: skip


def test_a_page_lists_missing_experiments_and_runs_on_a_busy_machine():
    page = write_page([{**SECTION, "run": {**RUN, "load": 9.0}}], ["one", "two"], "figures")
    assert "| two | not run |" in page
    assert "other work to do during one" in page
    assert "![One](figures/one.svg)" in page
    assert "* So." in page
    quiet = write_page([SECTION], ["one"], "figures")
    assert "other work" not in quiet
    assert "first adapters" not in quiet


def test_a_page_says_which_adapters_early_runs_measured():
    page = write_page([{**SECTION, "run": {**RUN, "day": "2026-11-24"}}], ["one"], "figures")
    assert "Runs up to 2026-11-29 measured the first adapters of `harmless`" in page


@pytest.mark.parametrize("only", [None, ["gates"]])
def test_a_page_without_all_experiments_is_not_published(tmp_path, capsys, only):
    """Writing runs nothing, so what `only` names is missing too."""
    published = ROOT / "docs" / "reproduction.md"
    before = published.read_text(encoding="utf-8")
    for name in set(EXPERIMENTS) - {"gates"}:
        (tmp_path / f"{name}.json").write_text(json.dumps({**SECTION, "name": name}))
    main(write_only=True, only=only, folder=tmp_path)
    assert published.read_text(encoding="utf-8") == before
    assert "| gates | not run |" in (tmp_path / "reproduction.md").read_text(encoding="utf-8")
    assert "they have not been run: gates." in " ".join(capsys.readouterr().err.split())
