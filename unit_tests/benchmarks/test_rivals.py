"""Rivals that need no other environment, on tiny random models; the table, the page and the plot."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.rivals import assisted, generate, llama_cpp, loop, our_engine, vllm
from benchmarks.rivals.board import board
from benchmarks.rivals.family import Prompts
from benchmarks.rivals.lineup import MAKERS, RIVALS, chosen
from benchmarks.rivals.page import BEGIN, END, replace_between_markers
from benchmarks.rivals.plot import plot

RUNNING = (
    our_engine.PLAIN,
    our_engine.AUTO,
    our_engine.BASE_ALONE,
    loop.LOOP,
    generate.GENERATE,
    assisted.ASSISTED,
)


@pytest.fixture(scope="module")
def decode(small_family):
    processes = {rival.process: rival.make(small_family.folder) for rival in RUNNING}

    def run(rival, prompts, temperature):
        return processes[rival.process].decode(prompts, 12, temperature, 1, **rival.options)

    yield run
    processes["our engine"].close()


@pytest.mark.slow
@pytest.mark.parametrize("rival", RUNNING, ids=lambda rival: rival.name)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rivals_give_full_answers_and_count_them(decode, small_family, rival, temperature):
    result = decode(rival, Prompts(small_family).take(3), temperature)
    assert [len(answer) for answer in result.answers] == [12, 12, 12]
    assert not any(end in answer for answer in result.answers for end in small_family.end_ids)
    # Draft tokens may come with the first token. The time of a batch starts with its last answer.
    assert 3 * 8 <= result.tokens <= 3 * 11
    assert 0 < result.passes <= result.tokens
    assert result.seconds > 0
    if rival in {our_engine.PLAIN, loop.LOOP, generate.GENERATE}:
        assert result.tokens == result.passes
    if rival in {loop.LOOP, generate.GENERATE}:  # of ours, a request may begin a round before the others
        assert result.tokens == 3 * 11


@pytest.mark.slow
def test_rivals_decode_the_same_greedy_text(decode, small_family):
    prompts = Prompts(small_family).take(3)
    answers = {rival: decode(rival, prompts, 0.0).answers for rival in RUNNING}
    behaving = [answers[rival] for rival in (our_engine.PLAIN, our_engine.AUTO, loop.LOOP)]
    alone = [answers[rival] for rival in (our_engine.BASE_ALONE, generate.GENERATE, assisted.ASSISTED)]
    assert behaving[0] == behaving[1] == behaving[2]
    assert alone[0] == alone[1] == alone[2]
    assert behaving[0] != alone[0]


def test_cards_need_no_library():
    # They are read in every rival's environment, and some have neither torch nor transformers.
    libraries = {"torch", "numpy", "pydantic"}
    script = f"import sys, benchmarks.rivals.worker; sys.exit(bool({libraries} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0  # noqa: S603


def test_every_rival_has_a_process_and_another_name():
    assert len({rival.name for rival in RIVALS}) == len(RIVALS)
    assert {rival.process for rival in RIVALS} <= set(MAKERS)


def test_rivals_are_chosen_by_a_part_of_their_names():
    assert chosen(["llama", "vLLM"]) == [vllm.ONE_BEHAVIOR, vllm.BASE_ALONE, llama_cpp.LLAMA_CPP]
    assert chosen(None) == list(RIVALS)
    with pytest.raises(ValueError, match=r"'ollama'.*llama\.cpp, base alone"):
        chosen(["ollama"])


def test_a_rival_without_environment_or_package_is_not_installed(tmp_path):
    assert loop.LOOP.is_installed()
    assert not replace(loop.LOOP, python=tmp_path / "python").is_installed()
    assert not replace(loop.LOOP, package="no-such-package").is_installed()


def score(name, requests, speed, ratio):
    spread = {"low": speed - 1, "median": speed, "high": speed + 1}
    return {
        "contestant": name,
        "requests": requests,
        "tokens_per_second": spread,
        "ratio": {"median": ratio},
    }


REPORT = {
    "family": "f", "tokens": 8, "temperature": 0.0, "baseline": "proxy loop", "rounds": 2,
    "machine": {"processor": "p", "cores": 2, "threads": 1},
    "versions": {
        "proxy loop": {"threads": 1, "torch": "2.1", "transformers": "5.2"},
        "our engine, plain": {"threads": 1, "torch": "2.2", "transformers": "5.2"},
    },
    "memory": {"proxy loop": 2**30, "our engine, plain": 3 * 2**29},
    "scores": [
        score("proxy loop", 1, 20.0, 1.0),
        score("our engine, plain", 1, 30.0, 1.5),
        score("proxy loop", 8, 100.0, 1.0),
        score("our engine, plain", 8, 120.0, 1.2),
    ],
}  # fmt: skip


def test_the_board_lists_every_rival_also_those_that_are_not_installed():
    lines = board(REPORT, (our_engine.PLAIN, loop.LOOP, llama_cpp.LLAMA_CPP), "A quiet machine.").splitlines()
    assert lines[0].startswith("p, 2 cores, 1 threads; torch 2.1 and 2.2, transformers 5.2. Family: f;")
    assert lines[0].endswith("A quiet machine.")
    assert lines[2] == "| | 1 request | 8 requests | memory | without |"
    assert lines[4] == "| our engine, plain | 30 (29-31), 1.50x | 120 (119-121), 1.20x | 1.5 GiB | drafts |"
    missing = " | ".join(["llama.cpp, base alone", "not installed", "not installed", "-"])
    assert lines[6] == f"| {missing} | `{llama_cpp.LLAMA_CPP.install}` installs it |"
    assert {line.count("|") for line in lines[2:]} == {6}


def test_the_text_between_the_markers_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    replace_between_markers(page, "new")
    replace_between_markers(page, "newer")
    assert page.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="must have these two lines"):
        replace_between_markers(page, "new")


def test_the_page_has_the_markers_and_every_rival():
    page = (Path(__file__).parents[2] / "docs/performance.md").read_text(encoding="utf-8")
    written = page.split(BEGIN)[1].split(END)[0]
    assert all(f"| {rival.name} |" in written for rival in RIVALS)


@pytest.mark.slow
def test_the_plot_has_a_bar_for_each_measured_rival_and_is_the_same_again(tmp_path):
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for path in (first, second):
        plot(REPORT, (our_engine.PLAIN, loop.LOOP, llama_cpp.LLAMA_CPP), path)
    text = first.read_text()
    assert text.count(">our engine, plain<") == 1
    assert text.count(">proxy loop<") == 1
    assert "llama.cpp" not in text
    assert first.read_bytes() == second.read_bytes()
