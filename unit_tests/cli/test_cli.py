"""The command line without weights: what can be typed, what is remembered, where the output goes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated

import pytest
import typer
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import ValidationError
from rich.text import Text
from typer.testing import CliRunner

from langchain_eft.chat_models import EFTChatModel
from langchain_eft.cli import app
from langchain_eft.cli.chat import statistics
from langchain_eft.cli.console import InputError, readable
from langchain_eft.cli.conversation import Conversation, run_command
from langchain_eft.cli.options import option_groups
from langchain_eft.cli.parse_recipe import parse_behaviors, parse_speculation, read_prompts
from langchain_eft.engine.config import EngineConfig
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.recipe.behaviors import BehaviorDelta
from langchain_eft.errors import EFTDecodingError
from langchain_eft.evaluation import BUILT_IN
from unit_tests.cli.announced import announced
from unit_tests.forked import Forked, empty_cache
from unit_tests.tiny import write_gguf


class Parrot(EFTChatModel):
    """A chat model without weights: repeats the last message and says how many there were.

    All settings are checked as in the real one. "fail", "bug" and "interrupt" do so in mid-answer.
    """

    seen: list = []  # noqa: RUF012  (pydantic copies it)
    closed: list = []  # noqa: RUF012

    def open(self, progress=None, *, model=None):
        progress("Loading nothing")

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(messages)
        said = messages[-1].content
        try:
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{len(messages)} "))
            if said == "fail":
                raise EFTDecodingError("The device is on fire: cool it.")
            if said == "bug":
                raise ZeroDivisionError
            if said == "interrupt":
                raise KeyboardInterrupt
            yield ChatGenerationChunk(message=AIMessageChunk(content=said))
            yield ChatGenerationChunk(message=self._last())
        finally:
            self.closed.append(said)

    def _last(self):
        eft = {"mixture": self.mixture or {}, "tokens_per_second": 12.345, "drafted": 0}
        if self.speculation != "auto":
            eft |= {"drafted": 8, "accepted": 5, "acceptance_rate": 0.625}
        return AIMessageChunk(
            content="",
            response_metadata={"finish_reason": "stop", "eft": eft},
            usage_metadata={"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
            chunk_position="last",
        )


def conversation(system=None, **settings):
    return Conversation(settings, system, build=Parrot)


def told(chat, text):
    return "".join(chunk.text for chunk in chat.ask(text))


@pytest.fixture
def cli(monkeypatch):
    """Runs `langchain-eft ...` with the parrot in place of the real model."""
    monkeypatch.setattr("langchain_eft.chat_models.EFTChatModel", Parrot)
    return lambda *arguments, typed=None: CliRunner().invoke(app, arguments, input=typed)


# Recipes


def test_prompts_and_documents_are_behaviors():
    found = parse_behaviors(["brief=prompt:Be brief.", "grounded=without:context"])
    assert found == {"brief": BehaviorDelta(prompt="Be brief."), "grounded": BehaviorDelta(without="context")}
    judged = parse_behaviors(["brief=prompt:Be brief."], reference="small")
    assert judged["brief"].reference == "small"


# Behaviors, draft lengths and prompts


@pytest.fixture
def sources(tmp_path):
    """A folder with an adapter and one with a tuned model."""
    for name in ("lora", "tuned"):
        (tmp_path / name).mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    (tmp_path / "tuned.gguf").touch()
    return tmp_path


def test_folders_are_adapters_or_tuned_models_by_what_they_hold(sources):
    entries = [f"a={sources}/lora", f"b={sources}/tuned", f"c={sources}/tuned.gguf"]
    assert parse_behaviors(entries, "owner/small") == {
        "a": BehaviorDelta(adapter=f"{sources}/lora", reference="owner/small"),
        "b": BehaviorDelta(tuned=f"{sources}/tuned", reference="owner/small"),
        "c": BehaviorDelta(tuned=f"{sources}/tuned.gguf", reference="owner/small"),
    }


def test_hub_ids_are_tuned_models_unless_said_to_be_adapters():
    assert parse_behaviors(["a=adapter:owner/lora", "b=owner/tuned-1.5B"]) == {
        "a": BehaviorDelta(adapter="owner/lora"),
        "b": BehaviorDelta(tuned="owner/tuned-1.5B"),
    }


def test_a_tuned_model_needs_a_reference_unless_a_preset_has_one():
    for model in (None, "smol"):
        assert parse_behaviors(["a=owner/tuned"], model=model) == {"a": BehaviorDelta(tuned="owner/tuned")}
    with pytest.raises(InputError, match=r"'a=owner/tuned'.*--reference"):
        parse_behaviors(["a=owner/tuned"], model="owner/large")
    parse_behaviors(["a=adapter:owner/lora"], model="owner/large")


@pytest.mark.parametrize(
    ("entries", "reference", "named"),
    [
        (["house"], None, "'house'.*NAME=SOURCE"),
        (["house="], None, "'house='.*NAME=SOURCE"),
        (["=owner/lora"], None, "'=owner/lora'.*NAME=SOURCE"),
        (["house=./no-such-folder"], None, "'./no-such-folder'.*'house'.*adapter:OWNER/NAME"),
        (["house=adapter:./no-such-folder"], None, "'adapter:./no-such-folder'"),
        (["house=gpt2"], None, "'gpt2'.*OWNER/NAME"),
        (["house=a/b", "house=c/d"], None, "'house' is given twice"),
        ([], "owner/small", "--reference 'owner/small'.*--behavior"),
    ],
)
def test_what_is_no_behavior_is_named(entries, reference, named):
    with pytest.raises(InputError, match=named):
        parse_behaviors(entries, reference)


def test_draft_lengths_are_read():
    assert [parse_speculation(text) for text in ("auto", "off", "4")] == ["auto", "off", 4]
    for text in ("fast", "99", "-1", "2.5", ""):
        with pytest.raises(InputError, match=f"'{text}'.*auto, off or a number from 0 to 16"):
            parse_speculation(text)


def test_prompts_are_the_lines_of_a_file(tmp_path):
    file = tmp_path / "prompts"
    file.write_text("One\n\n  Zwölf\u2028Elf \n", encoding="utf-8")
    assert read_prompts(file) == ["One", "Zwölf\u2028Elf"]


@pytest.mark.parametrize(
    ("content", "named"), [(None, "cannot be read"), (b"\n", "no prompt"), (b"\xff", "utf-8")]
)
def test_files_without_prompts_are_named(tmp_path, content, named):
    file = tmp_path / "prompts"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=f"'{file}'.*{named}.*one"):
        read_prompts(file)


# Conversations


def test_a_conversation_remembers_its_turns():
    chat = conversation("Be brief.")
    assert told(chat, "Hi") == "2 Hi"
    assert told(chat, "Again") == "4 Again"
    assert chat.llm.seen[-1] == [
        SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("2 Hi"), HumanMessage("Again")
    ]  # fmt: skip


@pytest.mark.parametrize(("said", "error"), [("fail", EFTDecodingError), ("bug", ZeroDivisionError)])
def test_a_failed_turn_is_forgotten(said, error):
    chat = conversation()
    told(chat, "Hi")
    before = list(chat.history)
    with pytest.raises(error):
        told(chat, said)
    assert chat.history == before
    assert told(chat, "Again") == "3 Again"


def test_a_stopped_answer_ends_the_stream_and_stays_in_the_conversation():
    chat = conversation()
    answer = chat.ask("Hi")
    next(answer)
    assert chat.llm.closed == []
    answer.close()
    assert chat.llm.closed == ["Hi"]
    assert chat.history == [HumanMessage("Hi"), AIMessage("1 ")]


def test_an_interrupt_keeps_what_was_said():
    chat = conversation()
    with pytest.raises(KeyboardInterrupt):
        told(chat, "interrupt")
    assert chat.history == [HumanMessage("interrupt"), AIMessage("1 ")]


def test_statistics_name_tokens_speed_reason_and_mixture():
    *_, last = conversation(mixture={"pirate": 0.5}).ask("Hi")
    assert statistics(last) == "7 tokens · 12.3 tokens/s · stop · mixture pirate=0.5"


def test_statistics_tell_how_many_draft_tokens_were_accepted():
    *_, last = conversation(mixture={}, speculation=4).ask("Hi")
    assert statistics(last).endswith("(the base model alone) · 5 of 8 draft tokens accepted (62%)")


# Slash commands


@pytest.mark.parametrize(
    ("line", "mixture"),
    [
        ("/mix pirate=0.7", {"pirate": 0.7}),
        ("/mix pirate=0.7 concise=1", {"pirate": 0.7, "concise": 1.0}),
        ("/mix  pirate=0.7, concise=1", {"pirate": 0.7, "concise": 1.0}),
        ("/mix none", {}),
    ],
)
def test_mix_replaces_the_mixture(line, mixture):
    chat = conversation(mixture={"harmless": 1.0})
    run_command(chat, line)
    assert chat.llm.mixture == mixture


@pytest.mark.parametrize(
    ("settings", "mixture"),
    [({}, "tools=1"), ({"mixture": {"pirate": 0.5}}, "pirate=0.5"), ({"mixture": {}}, "none")],
)
def test_mix_alone_shows_the_mixture_and_the_behaviors(settings, mixture):
    shown = run_command(conversation(**settings), "/mix")
    assert f"Mixture: {mixture}" in shown
    assert "'concise', 'harmless', 'pirate', 'tools'" in shown


@pytest.mark.parametrize(
    ("line", "error", "named"),
    [
        ("/mix parrot=1", ValidationError, "'parrot'.*'pirate'"),
        ("/mix pirate=-1", ValidationError, "-1.0.*0 or more"),
        ("/mix pirate=nan", ValidationError, "nan"),
        ("/mix pirate", RecipeError, "NAME=WEIGHT"),
        ("/temp hot", ValidationError, "'hot'"),
        ("/temp -1", ValidationError, "greater than or equal to 0"),
        ("/max none", ValidationError, "max_tokens"),
        ("/seed x", ValidationError, "'x'"),
        ("/blend pirate=1", InputError, "'/blend'.*'/mix'"),
        ("/", InputError, "'/'"),
    ],
)
def test_bad_commands_name_the_value_and_change_nothing(line, error, named):
    chat = conversation(mixture={"tools": 0.5}, temperature=0.3)
    with pytest.raises(error) as caught:
        run_command(chat, line)
    assert re.search(named, readable(caught.value))
    assert (chat.llm.mixture, chat.llm.temperature) == ({"tools": 0.5}, 0.3)
    run_command(chat, "/temp 0.4")  # the bad value was not kept for the next change either
    assert (chat.llm.mixture, chat.llm.temperature) == ({"tools": 0.5}, 0.4)


def test_temp_sets_the_temperature_and_keeps_other_settings():
    chat = conversation(seed=3)
    assert run_command(chat, "/temp 0.2") == run_command(chat, "/temp") == "Temperature: 0.2."
    assert (chat.llm.temperature, chat.llm.seed) == (0.2, 3)


def test_seed_and_max_set_their_fields():
    chat = conversation(seed=3)
    assert run_command(chat, "/seed none") == "Seed: none."
    assert run_command(chat, "/max 9") == "Tokens of an answer: 9."
    assert (chat.llm.seed, chat.llm.max_tokens) == (None, 9)


def test_system_sets_and_removes_the_system_message():
    chat = conversation()
    run_command(chat, "/system You are a parrot.")
    assert told(chat, "Hi") == "2 Hi"
    assert chat.llm.seen[-1][0] == SystemMessage("You are a parrot.")
    assert "You are a parrot." in run_command(chat, "/system")
    run_command(chat, "/system none")
    run_command(chat, "/reset")
    assert told(chat, "Hi") == "1 Hi"


def test_reset_forgets_turns_and_keeps_settings():
    chat = conversation("Be brief.", mixture={"pirate": 1.0})
    told(chat, "Hi")
    run_command(chat, "/reset")
    assert told(chat, "Hi") == "2 Hi"
    assert chat.llm.mixture == {"pirate": 1.0}


def test_help_explains_every_command():
    shown = run_command(conversation(), "/help")
    assert all(f"/{name} " in shown for name in ("mix", "temp", "system", "reset", "help", "quit"))
    assert "Ctrl-C" in shown


def test_quit_leaves():
    with pytest.raises(EOFError):
        run_command(conversation(), "/quit")


# Options as dataclasses


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(min=1)] = 3
    tag: list[str] | None = None


def test_the_fields_of_a_dataclass_become_options():
    received = []

    @option_groups
    def draw(size: Size, shape: str, *, filled: bool = False) -> None:
        received.append((size, shape, filled))

    program = typer.Typer()
    program.command()(draw)
    for arguments in ([], ["--width", "5", "--tag", "a", "--tag", "b", "--filled"]):
        assert CliRunner().invoke(program, ["circle", *arguments]).exit_code == 0
    assert received == [(Size(), "circle", False), (Size(5, ["a", "b"]), "circle", True)]
    assert CliRunner().invoke(program, ["circle", "--width", "0"]).exit_code == 2
    assert CliRunner().invoke(program, ["circle", "--size", "1"]).exit_code == 2


# The program


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.split() == ["langchain-eft", metadata.version("langchain-eft")]


def test_help_lists_commands_and_options():
    def plain(*arguments):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
        assert result.exit_code == 0
        return Text.from_ansi(result.stdout).plain

    assert all(command in plain("--help") for command in ("chat", "demo", "verify", "--version"))
    shared = ["--mix", "--model", "--behavior", "--reference", "--chat-template", "--base-template",
              "--max-tokens", "--seed",
              "--upscale-strength", "--upscale-top-p", "--device", "--dtype"]  # fmt: skip
    own = {
        "chat": ["--system", "--temperature", "--top-p", "--speculation"],
        "verify": ["--prompts", "--samples", "--json"],
    }
    for command, options in own.items():
        shown = plain(command, "--help")
        assert [option for option in [*shared, *options] if option not in shown] == []
        assert "--mix none" in shown
    assert all(task in plain("eval", "--help") for task in BUILT_IN)
    assert not re.search(
        r"--(json|trace|no-auth|help) .*<bool>",
        plain("--help") + plain("chat", "--help") + plain("serve", "--help"),
    )
    for name in ("temperature", "top_p", "max_tokens"):
        assert f"[default: ({EFTChatModel.model_fields[name].default})]" in plain("chat", "--help")
    for name in ("max_batch_size", "max_queued_requests", "kv_cache_fraction"):
        assert f"[default: ({EngineConfig.model_fields[name].default})]" in plain("serve", "--help")


def test_one_shot_prints_the_answer_alone_on_stdout(cli):
    result = cli("chat", "Hello", "--mix", "pirate=0.5", "--mix", "concise=1")
    assert (result.exit_code, result.stdout) == (0, "1 Hello\n")
    assert result.stderr == "7 tokens · 12.3 tokens/s · stop · mixture pirate=0.5 concise=1\n"


def test_one_shot_reads_stdin(cli):
    result = cli("chat", "-", "--system", "Be brief.", typed="Hello\nthere\n")
    assert (result.exit_code, result.stdout) == (0, "2 Hello\nthere\n")


def test_options_reach_the_model(monkeypatch):
    built = []
    monkeypatch.setattr(
        "langchain_eft.chat_models.EFTChatModel",
        lambda **settings: built.append(settings) or Parrot(**settings),
    )
    arguments = ["--mix", "none", "--temperature", "0", "--top-p", "0.5", "--max-tokens", "9", "--seed", "0",
                 "--upscale-strength", "0", "--upscale-top-p", "0.9", "--device", "cpu",
                 "--dtype", "bfloat16", "--model", "smol", "--speculation", "4",
                 "--behavior", "a=adapter:owner/lora", "--reference", "owner/small",
                 "--base-template", "transcript"]  # fmt: skip
    assert CliRunner().invoke(app, ["chat", "Hi", *arguments]).exit_code == 0
    assert CliRunner().invoke(app, ["chat", "Hi"]).exit_code == 0
    assert built == [
        {
            "mixture": {}, "temperature": 0, "top_p": 0.5, "max_tokens": 9, "seed": 0, "upscale_strength": 0,
            "upscale_top_p": 0.9, "device": "cpu", "dtype": "bfloat16", "model": "smol",
            "speculation": 4, "base_template": "transcript",
            "behaviors": {"a": BehaviorDelta(adapter="owner/lora", reference="owner/small")},
        },
        {},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--mix", "pirate"], "NAME=WEIGHT"),
        (
            ["--mix", "priate=1"],
            "Did you mean 'pirate'? Use one of those in --mix, or add it with --behavior NAME=SOURCE.",
        ),
        (["--mix", "pirate=-1"], "Use a weight of 0 or more.\n"),
        (["--mix", "pirate=inf"], "Error: --mix pirate=inf: Use finite numbers"),
        (["--mix", "pirate=99999"], "Error: --mix pirate=99999.0: Use finite numbers"),
        (["--dtype", "int3"], "Error: --dtype 'int3': "),
        (["--top-p", "2"], "Error: --top-p 2.0: "),
        (["--model", "smoll"], "Did you mean 'smol'?"),
        (["--model", "./nowhere"], "Error: --model './nowhere' does not exist"),
        (["--speculation", "fast"], "'fast'"),
        (["--behavior", "house"], "'house'"),
        (["--reference", "owner/small"], "'owner/small'"),
        (["--base-url", "foo"], "Error: --base-url: Give the base URL"),
        (
            ["--chat-template", "nowhere.jinja"],
            "Error: --chat-template 'nowhere.jinja': There is no such file",
        ),
        (
            ["--base-template", "nowhere.jinja"],
            "Error: --base-template 'nowhere.jinja': There is no such file",
        ),
    ],
)
def test_known_errors_are_one_line_that_speaks_of_options(cli, arguments, named):
    result = cli("chat", "Hello", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert named in result.stderr
    assert not re.search(r"Value error|`|True", result.stderr)


@pytest.mark.parametrize("arguments", [["--temperature", "-1"], ["--max-tokens", "0"], ["--seed", "-1"]])
@pytest.mark.parametrize("command", ["chat", "trace"])
def test_numbers_out_of_range_are_refused_alike(cli, command, arguments):
    result = cli(command, "Hello", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '{arguments[0]}'" in result.stderr


@pytest.mark.parametrize("command", [("trace", "Hello", "--html"), ("bench", "--plot")])
def test_a_file_without_a_folder_is_refused_before_anything_is_loaded(cli, command):
    result = cli(*command, "nowhere/file")
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        result.stderr
        == f"Error: {command[-1]} 'nowhere/file': the folder 'nowhere' does not exist: create it.\n"
    )


@pytest.mark.parametrize(
    ("prompt", "typed", "named"),
    [("", None, "is empty"), ("-", "  \n", "is empty"), ("-", b"\xff", "Standard input is not UTF-8")],
)
def test_a_prompt_without_text_is_refused(cli, prompt, typed, named):
    result = cli("chat", prompt, typed=typed)
    assert (result.exit_code, result.stdout) == (1, "")
    assert named in result.stderr


def test_one_shot_as_json(cli):
    shown = json.loads(cli("chat", "Hello", "--json", "--mix", "pirate=1").stdout)
    assert (shown["content"], shown["usage_metadata"]["output_tokens"]) == ("1 Hello", 7)
    assert shown["response_metadata"]["eft"]["mixture"] == {"pirate": 1.0}
    assert "--json prints one answer" in cli("chat", "--json").stderr


def test_an_engine_error_ends_a_one_shot(cli):
    result = cli("chat", "fail")
    assert result.exit_code == 1
    assert "Error: The device is on fire: cool it." in result.stderr


def test_bugs_keep_their_traceback(cli):
    assert isinstance(cli("chat", "bug").exception, ZeroDivisionError)


def test_a_chat_goes_on_after_errors_interrupts_and_bad_commands(cli):
    lines = [
        "One",
        "fail",
        "interrupt",
        "",
        "/mix parrot=1",
        "/bogus",
        " /mix",
        "/mix pirate=0.7",
        "Two",
        "/quit",
        "No",
    ]
    result = cli("chat", typed="\n".join(lines))
    assert result.exit_code == 0
    # Each answer starts with the number of messages: the failed turn is gone, the interrupted one is kept.
    assert result.stdout.splitlines() == ["1 One", "3 ", "3 ", "5 /mix", "7 Two"]
    for shown in ("on fire", "Stopped", "'parrot'", "Use one of those in /mix", "'/bogus'", "pirate=0.7"):
        assert shown in result.stderr
    assert result.stderr.rstrip().endswith("mixture pirate=0.7")


def test_the_end_of_input_leaves(cli):
    result = cli("chat", typed="One\n")
    assert (result.exit_code, result.stdout) == (0, "1 One\n")


# Signals

MOMENTS = {
    "importing": ("langchain_eft.cli.chat", "load"),
    "converting": ("langchain_eft.engine.loading.conversion", "convert_gguf"),
    "loading": ("langchain_eft.engine.loading.family", "load_gguf_module"),
    "checking": ("langchain_eft.engine.loading.family", "prepare_model"),
    "answering": ("langchain_eft.engine.rounds.runner:Runner", "prefill"),
}


def forked(moment, arguments, environment):
    return Forked(announced, *MOMENTS[moment], argv=["langchain-eft", *arguments], environment=environment)


def new(moment, arguments, environment):
    """A process that has imported nothing yet."""
    call = f"from unit_tests.cli.announced import announced; announced{MOMENTS[moment]}"
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", call, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def signalled(moment, signals, *, delay, folder):
    """Send signals to `langchain-eft chat` a while after a moment of it. Returns its status and stderr."""
    write_gguf(folder / "model.gguf")
    arguments = ["chat", "Hello", "--model", folder / "model.gguf", "--max-tokens", "900"]
    environment = empty_cache(folder / "cache")
    process = (new if moment == "importing" else forked)(moment, arguments, environment)
    try:
        assert process.stdout.readline() == "now\n"
        time.sleep(delay)
        for each in signals:
            process.send_signal(each)
            time.sleep(0.02)
        return process.wait(PATIENCE), process.stderr.read()
    finally:
        process.kill()


PATIENCE = 300
"""Seconds that the end may take on a busy machine."""

CASES = [*((moment, 0.05, 1) for moment in MOMENTS), ("loading", 0.2, 3), ("answering", 0, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "delay", "times"), CASES)
def test_ctrl_c_ends_the_program_at_any_moment(moment, delay, times, tmp_path):
    status, stderr = signalled(moment, [signal.SIGINT] * times, delay=delay, folder=tmp_path)
    assert status in {130, -signal.SIGINT}, stderr
    assert "terminate called" not in stderr


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_termination_signal_ends_the_program_at_any_moment(moment, tmp_path):
    status, stderr = signalled(moment, [signal.SIGTERM], delay=0.05, folder=tmp_path)
    assert status == -signal.SIGTERM
    assert "terminate called" not in stderr


def test_importing_the_command_line_imports_nothing_heavy():
    heavy = ["langchain_core", "numpy", "scipy", "torch", "transformers"]
    code = f"import sys, langchain_eft.cli; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
