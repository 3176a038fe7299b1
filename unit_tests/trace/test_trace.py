"""Traces in messages and completions, and how they are read, summed up and shown."""

import asyncio
import io
import json
from typing import Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from rich.console import Console
from typer.testing import CliRunner

from langchain_eft import EFTLLM, EFTChatModel, EFTTrace, Gate
from langchain_eft.cli import app
from langchain_eft.cli.chat import show
from langchain_eft.engine.errors import RequestError
from langchain_eft.trace.tokens import Alternative, Change, Contribution, TracedToken, traced_tokens

MIXTURE = {"one": 1.0, "two": 0.5}


@pytest.fixture(scope="module")
def settings(family):
    return {
        "model": str(family.folder / "base"),
        "behaviors": family.recipe.behaviors,
        "mixture": MIXTURE,
        "temperature": 0.8,
        "seed": 3,
        "max_tokens": 12,
        "engine_options": {"kv_cache_tokens": 2048},
    }


@pytest.fixture(scope="module")
def llm(settings):
    llm = EFTChatModel(**settings)
    yield llm
    llm.engine.close()


def change(amount, up="good", down="bad"):
    return {
        "total_variation": amount,
        "up": Alternative(id=1, token=up, change=amount),
        "down": Alternative(id=2, token=down, change=-amount),
    }


def token(text, by_base=0.0, cut=0, **by_behaviors):
    """A traced token with made-up numbers."""
    return TracedToken(
        id=1,
        token=text or "<end>",
        text=text,
        logprob=-0.5,
        base=-1.0,
        small=-2.0,
        from_base=Change(**change(max(by_behaviors.values(), default=0.0))),
        from_small=Change(**change(by_base)),
        behaviors={
            name: Contribution(weight=2.0, tuned=-1.0, reference=-4.0, contribution=6.0, **change(amount))
            for name, amount in by_behaviors.items()
        },
        cut=cut,
    )


STORY = EFTTrace(
    tokens=(
        token("Arr", 0.1, pirate=0.9),
        token(", ", 0.0, pirate=0.6),
        token("To", 0.7, pirate=0.2),
        token("kyo", 0.2, pirate=0.1),
        token(" <b>&", 0.05, pirate=0.0),
        token("", 0.0, pirate=0.3),
    )
)


# In messages


def test_a_message_carries_a_trace_only_where_it_was_asked_for(llm):
    trace = EFTTrace.from_message(llm.invoke("hi", trace=True))
    message = llm.invoke("hi", trace=True, logprobs=True)
    assert [t.logprob for t in trace.tokens] == pytest.approx(
        [entry["logprob"] for entry in message.response_metadata["logprobs"]["content"]], abs=1e-4
    )
    assert len(trace.tokens) == message.usage_metadata["output_tokens"]
    assert trace.text == message.content
    for traced in trace.tokens:
        for name, part in traced.behaviors.items():
            assert part.weight == MIXTURE[name]
            assert part.contribution == pytest.approx(part.weight * (part.tuned - part.reference))
    plain = llm.invoke("hi")
    assert "trace" not in plain.response_metadata
    with pytest.raises(RequestError, match="trace=True"):
        EFTTrace.from_message(plain)


@pytest.mark.parametrize("draft", ["off", 3])
def test_a_stream_traces_each_chunks_own_tokens(llm, draft):
    whole = EFTTrace.from_message(llm.invoke("hi", trace=True))
    chunks = list(llm.stream("hi", trace=True, speculation=draft))
    streamed = EFTTrace.from_chunks(chunks)
    assert [t.id for t in streamed.tokens] == [t.id for t in whole.tokens]
    assert "".join(t.text for t in traced_tokens(chunks[0])) == chunks[0].text
    merged = chunks[0]
    for chunk in chunks[1:]:
        merged += chunk
    assert EFTTrace.from_message(merged) == streamed
    assert traced_tokens(chunks[-1]) == []


async def test_the_asynchronous_twins_trace_too(llm):
    message, *_ = await asyncio.gather(llm.ainvoke("hi", trace=True), llm.ainvoke("ho"))
    chunks = [chunk async for chunk in llm.astream("hi", trace=True)]
    texts = {EFTTrace.from_message(message).text, EFTTrace.from_chunks(chunks).text}
    assert texts == {llm.invoke("hi").content}


def test_tool_calls_are_traced_token_by_token(llm):
    def paint(color: Literal["red", "blue"]) -> str:
        """Paint something."""
        return color

    forced = llm.bind_tools([paint], tool_choice="paint")
    message = forced.invoke("hi", trace=True, max_tokens=200)
    trace = EFTTrace.from_message(message)
    assert message.tool_calls
    assert "paint" in trace.text
    assert len(trace.tokens) == message.usage_metadata["output_tokens"]


def test_what_a_stop_string_takes_is_not_shown(llm):
    letters = llm.invoke("hi", trace=True).content
    stop = letters[4:6]
    message = llm.invoke("hi", trace=True, stop=[stop])
    trace = EFTTrace.from_message(message)
    assert trace.text == message.content == letters[: letters.index(stop)]
    assert len(trace.tokens) == message.usage_metadata["output_tokens"]


def test_completions_carry_traces_in_their_generation(settings):
    llm = EFTLLM(**settings)
    generation = llm.generate(["one two"], trace=True).generations[0][0]
    trace = EFTTrace.from_message(generation)
    assert trace.text == generation.text == llm.invoke("one two")
    assert "trace" not in llm.generate(["one two"]).generations[0][0].generation_info


def test_caches_tell_traced_answers_from_others(llm, settings):
    traced = EFTChatModel(**settings, trace=True)
    assert traced._identifying_params != llm._identifying_params


# Reading


def test_a_trace_survives_json():
    assert EFTTrace.from_dict(json.loads(json.dumps(STORY.to_dict()))) == STORY


def test_who_changed_a_token_most():
    assert [t.changed_by for t in STORY.tokens] == ["pirate", "pirate", "base", "base", None, "pirate"]


def test_a_summary_counts_shares_and_names_words():
    summary = STORY.summary(words=2)
    assert summary.tokens == 6
    assert summary.base.mean == pytest.approx(1.05 / 6)
    assert summary.base.changed == pytest.approx(1 / 6)
    assert summary.base.contribution is None
    assert [(word.text, word.total_variation) for word in summary.base.words] == [
        ("Tokyo", 0.7),
        ("Arr,", 0.1),
    ]
    pirate = summary.behaviors["pirate"]
    assert pirate.changed == pytest.approx(2 / 6)
    assert pirate.contribution == 6.0
    assert [word.text for word in pirate.words] == ["Arr,", "Tokyo"]
    assert "'Tokyo' 0.70" in str(summary)


def test_a_stop_string_may_cut_through_several_tokens():
    trace = EFTTrace(tokens=(token("one", x=0.1), token(" st", x=0.1), token("op!", x=0.1, cut=5)))
    assert trace.pieces() == ["one", " ", ""]


# Showing


def test_the_page_is_whole_and_escaped():
    page = STORY.to_html()
    assert page.startswith("<!doctype html>")
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page
    assert "⟨&lt;end&gt;⟩" in page
    assert "http" not in page
    assert "--behaviors:0.900;--base:0.100" in page
    assert "2 · pirate" in page
    assert "+6.00" in page
    assert "<html" not in STORY._repr_html_()


def test_a_hostile_name_cannot_leave_its_place():
    trace = EFTTrace(tokens=(token('"><script>', **{"<i>'": 0.5}),))
    assert "<script>" not in trace.to_html()
    assert "<i>" not in trace.to_html()


def test_a_terminal_shows_colors_and_a_pipe_plain_text():
    terminal, pipe = io.StringIO(), io.StringIO()
    STORY.print(Console(file=terminal, force_terminal=True, color_system="truecolor", width=100))
    STORY.print(Console(file=pipe, width=100))
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in pipe.getvalue()
    assert pipe.getvalue().startswith("Arr, Tokyo <b>&\n")


# The command line


def arguments(family):
    folder = family.folder
    return ["--model", str(folder / "base"), "--behavior", f"one={folder / 'one'}", "--mix", "one=1"]


def test_the_trace_command_prints_and_writes(family, tmp_path):
    page = tmp_path / "trace.html"
    options = [*arguments(family), "--max-tokens", "6"]
    result = CliRunner().invoke(app, ["trace", "hi", "--html", str(page), *options])
    assert result.exit_code == 0, result.stderr
    assert "one: " in result.stdout
    assert "changed by" not in result.stdout, "what the colors mean, where there are none"
    assert "eft-trace" in page.read_text(encoding="utf-8")
    result = CliRunner().invoke(app, ["trace", "hi", "--json", *options])
    assert EFTTrace.from_dict(json.loads(result.stdout)).tokens[0].behaviors.keys() == {"one"}
    result = CliRunner().invoke(app, ["trace", "hi", "--html", str(tmp_path / "no" / "x.html"), *options])
    assert result.exit_code == 1
    assert "does not exist" in result.stderr


def test_a_traced_chat_is_plain_text_in_a_pipe(family):
    options = [*arguments(family), "--max-tokens", "6", "--temperature", "0"]
    plain = CliRunner().invoke(app, ["chat", "hi", *options])
    traced = CliRunner().invoke(app, ["chat", "hi", "--trace", *options])
    assert traced.stdout == plain.stdout
    assert "share that would differ without each part" in traced.stderr


def test_a_chunk_is_colored_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    entries = [t.model_dump() for t in STORY.tokens[:1]]
    show(AIMessage("Arr", response_metadata={"trace": entries}))
    show(HumanMessage("plain"))
    out = capsys.readouterr().out
    assert "\x1b[" in out
    assert out.endswith("plain")


def test_gates_are_in_traces_summaries_and_pages(llm):
    mixture = {"one": Gate(below=0.12, otherwise=0.25), "two": 0.5}
    message = llm.invoke("hi", trace=True, mixture=mixture)
    trace = EFTTrace.from_message(message)
    opened = [token.behaviors["one"].opened for token in trace.tokens]
    assert set(opened) == {True, False}
    assert [token.behaviors["one"].weight for token in trace.tokens] == [1.0 if o else 0.25 for o in opened]
    assert all(token.behaviors["two"].opened is None for token in trace.tokens)
    summary = trace.summary()
    share = sum(opened) / len(opened)
    assert (summary.behaviors["one"].opened, summary.behaviors["two"].opened) == (share, None)
    assert f"gate open for {share:.0%}" in str(summary)
    page = trace.to_html()
    assert page.count("gate open)") == sum(opened)
    assert page.count("gate closed)") == len(opened) - sum(opened)
    assert EFTTrace.from_dict(json.loads(json.dumps(trace.to_dict()))) == trace
