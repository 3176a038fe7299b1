"""The command line: `langchain-eft chat`, `demo` and `verify`.

Answers go to stdout and everything else to stderr, so that an answer can be piped. Nothing here imports torch
before weights are needed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from langchain_eft.behaviors import BehaviorDelta, known
from langchain_eft.engine.errors import EngineError
from langchain_eft.engine.request import Speculation
from langchain_eft.presets import preset_names

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk, BaseMessage

    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.engine import Engine
    from langchain_eft.verification import Report, Row

NOTHING = "none"
"""What `--mix`, `/mix` and `/system` call the empty mixture and the absent system message."""

ADAPTER = "adapter:"
"""What `--behavior` puts before the hub id of an adapter; of a folder it is plain what it holds."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

app = typer.Typer(
    help="Emulated fine-tuning: a large model's knowledge with small models' behaviours.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
notes = Console(stderr=True, highlight=False, markup=False)


class InputError(ValueError):
    """Something typed that cannot be understood; the message says what would be."""


KNOWN_ERRORS = (EngineError, ValidationError, InputError)
"""Errors whose message is all that a reader needs; anything else is a bug and keeps its traceback."""


# What can be typed


def parse_mixture(entries: Iterable[str]) -> dict[str, float]:
    """`["pirate=0.7", "concise=1"]` as a mixture; `["none"]` is the empty one, the base model alone.

    Raises:
        InputError: An entry of another form, or a behaviour given twice.
    """
    entries = list(entries)
    if entries == [NOTHING]:
        return {}
    mixture: dict[str, float] = {}
    for entry in entries:
        name, _, weight = entry.partition("=")
        if name in mixture:
            raise InputError(f"{name!r} is in the mixture twice: give every behaviour one weight.")
        mixture[name] = _weight(entry, weight)
    return mixture


def _weight(entry: str, weight: str) -> float:
    with suppress(ValueError):
        return float(weight)
    raise InputError(
        f"{entry!r} is no part of a mixture: write NAME=WEIGHT, for example pirate=0.7, "
        f"or {NOTHING!r} alone for the base model by itself."
    )


def parse_behaviors(
    entries: Iterable[str], reference: str | None = None, model: str | None = None
) -> dict[str, BehaviorDelta]:
    """`["house=./house-lora", "chat=owner/tuned-model"]` as behaviours.

    Args:
        entries: Behaviours as they are typed.
        reference: The small model before fine-tuning, for all of them.
        model: The base that was typed, if any; a preset brings a reference.

    Raises:
        InputError: An entry of another form, a behaviour given twice, a reference that is missing or has
            nothing to refer to.
    """
    behaviors: dict[str, BehaviorDelta] = {}
    for entry in entries:
        name, _, source = entry.partition("=")
        if not (name and source):
            raise InputError(f"{entry!r} is no behaviour: write NAME=SOURCE, for example house=./house-lora.")
        if name in behaviors:
            raise InputError(f"The behaviour {name!r} is given twice: give every behaviour one source.")
        behaviors[name] = _behavior(name, source, reference)
        if behaviors[name].tuned and not reference and model is not None and model not in preset_names():
            raise InputError(
                f"The behaviour {entry!r} is a tuned model: name the small model before fine-tuning with "
                "--reference SOURCE."
            )
    if reference and not behaviors:
        raise InputError(
            f"--reference {reference!r} has no behaviour to refer to: add one with --behavior NAME=SOURCE."
        )
    return behaviors


def _behavior(name: str, source: str, reference: str | None) -> BehaviorDelta:
    hub_id, path = source.removeprefix(ADAPTER), Path(source).expanduser()
    if path.is_dir() and (path / "adapter_config.json").is_file():
        return BehaviorDelta(adapter=str(path), reference=reference)
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return BehaviorDelta(tuned=str(path), reference=reference)
    if not _HUB_ID.fullmatch(hub_id):
        raise InputError(
            f"The source {source!r} of behaviour {name!r} is neither a local folder or .gguf file nor a hub "
            f"id: write OWNER/NAME for a tuned model on the hub, {ADAPTER}OWNER/NAME for an adapter."
        )
    if hub_id != source:
        return BehaviorDelta(adapter=hub_id, reference=reference)
    return BehaviorDelta(tuned=source, reference=reference)


def parse_speculation(text: str) -> Speculation:
    """A draft length as it is typed.

    Raises:
        InputError: Neither `auto` nor `off` nor a number that can be drafted.
    """
    length: TypeAdapter[Speculation] = TypeAdapter(Speculation)
    with suppress(ValidationError):
        return length.validate_python(text)
    raise InputError(f"--speculation {text!r} is no draft length: write auto, off or a number from 0 to 16.")


def read_prompts(file: Path) -> list[str]:
    """The lines of a file that are not empty.

    Raises:
        InputError: A file that cannot be read, or is empty.
    """
    try:
        prompts = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--prompts {str(file)!r} cannot be read ({error}): give a text file, one prompt a line."
        ) from error
    if not prompts:
        raise InputError(f"--prompts {str(file)!r} holds no prompt: write one a line.")
    return prompts


def recipe_settings(
    model: str | None,
    mix: list[str] | None,
    behavior: list[str] | None,
    reference: str | None,
    **others: Any,
) -> dict[str, Any]:
    """The options of a recipe, and others, as the chat model's settings; those left out stay out.

    Raises:
        InputError: A value that cannot be understood.
    """
    settings = {
        "model": model,
        "mixture": None if mix is None else parse_mixture(mix),
        "behaviors": parse_behaviors(behavior or [], reference, model) or None,
        **others,
    }
    return {name: value for name, value in settings.items() if value is not None}


def format_mixture(mixture: dict[str, float]) -> str:
    """A mixture as it is typed, for people to read."""
    weights = " ".join(f"{name}={weight:g}" for name, weight in mixture.items())
    return weights or f"{NOTHING} (the base model alone)"


def readable(error: Exception) -> str:
    """An error as one line."""
    from langchain_eft.errors import describe  # imports LangChain

    return " ".join((describe(error) if isinstance(error, ValidationError) else str(error)).split())


def statistics(last: AIMessageChunk) -> str:
    """What the last chunk of an answer tells about it, as one line."""
    info, usage = last.response_metadata, last.usage_metadata
    eft = info["eft"]
    parts = [
        f"{usage['output_tokens'] if usage else 0} tokens",
        f"{eft['tokens_per_second']:.1f} tokens/s",
        info["finish_reason"],
        f"mixture {format_mixture(eft['mixture'])}",
    ]
    if eft["drafted"]:
        parts.append(f"{eft['accepted']} of {eft['drafted']} guesses right ({eft['acceptance_rate']:.0%})")
    return " · ".join(parts)


# The conversation, without input and output


def build_model(**settings: Any) -> EFTChatModel:
    """The chat model with these settings; checks them, loads nothing."""
    from langchain_eft.chat_models import EFTChatModel

    return EFTChatModel(**settings)


class Conversation:
    """A chat of several turns: the settings, what was said, and the commands that change them.

    Attributes:
        settings: Fields of the chat model that differ from its defaults.
        system: Text of the system message; None leaves it to the chat template.
        history: The turns so far, without the system message.
        llm: The chat model with these settings.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        system: str | None = None,
        build: Callable[..., EFTChatModel] = build_model,
    ) -> None:
        self.settings: dict[str, Any] = {}
        self.system = system
        self.history: list[BaseMessage] = []
        self._build = build
        self.change(**settings)

    def ask(self, text: str) -> Generator[AIMessageChunk]:
        """Stream the answer to the user's next message.

        Closing the stream stops the answer and keeps what was said; a turn that fails is forgotten.
        """
        from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

        before, turn, answer = self.history, HumanMessage(text), ""
        system = [SystemMessage(self.system)] if self.system else []
        stream = cast("Generator[AIMessageChunk]", self.llm.stream([*system, *before, turn]))
        try:
            with closing(stream):
                for chunk in stream:
                    answer += chunk.text
                    self.history = [*before, turn, AIMessage(answer)]
                    yield chunk
        except Exception:
            self.history = before
            raise

    def change(self, **settings: Any) -> None:
        """Replace some settings.

        Raises:
            ValidationError: A value that the chat model refuses; nothing has changed then.
        """
        changed = {**self.settings, **settings}
        self.llm = self._build(**changed)
        self.settings = changed


def run_command(conversation: Conversation, line: str) -> str:
    """Carry out a slash command.

    Returns:
        What to tell the user.

    Raises:
        InputError: An unknown command or a value that cannot be read.
        ValidationError: A value that the chat model refuses; nothing has changed then.
        EOFError: The user wants to leave.
    """
    name, _, argument = line.removeprefix("/").partition(" ")
    if name not in COMMANDS:
        raise InputError(
            f"Unknown command {'/' + name!r}: known are {known('/' + each for each in COMMANDS)}. "
            "Put a space in front to say it to the model."
        )
    run, _ = COMMANDS[name]
    return run(conversation, argument.strip())


def _mix(conversation: Conversation, argument: str) -> str:
    if argument:
        conversation.change(mixture=parse_mixture(argument.replace(",", " ").split()))
    llm = conversation.llm
    mixture = format_mixture(dict(llm.active_mixture.weights))
    return f"Mixture: {mixture}. Known behaviours: {known(llm.recipe.behaviors)}."


def _temp(conversation: Conversation, argument: str) -> str:
    if argument:
        conversation.change(temperature=argument)
    return f"Temperature: {conversation.llm.temperature:g}."


def _system(conversation: Conversation, argument: str) -> str:
    if argument:
        conversation.system = None if argument == NOTHING else argument
    return f"System message: {conversation.system or NOTHING}"


def _reset(conversation: Conversation, _: str) -> str:
    conversation.history = []
    return "What was said is forgotten; the settings stay."


def _help(_: Conversation, __: str) -> str:
    lines = [f"{'/' + name:8} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join([*lines, "Ctrl-C   stop an answer", "Ctrl-D   leave"])


def _quit(_: Conversation, __: str) -> str:
    raise EOFError


COMMANDS: dict[str, tuple[Callable[[Conversation, str], str], str]] = {
    "mix": (_mix, "show the mixture; /mix pirate=0.7 concise=1 replaces it, /mix none is the base alone"),
    "temp": (_temp, "show the temperature; /temp 0.2 sets it, /temp 0 is greedy"),
    "system": (_system, "show the system message; /system TEXT sets it, /system none removes it"),
    "reset": (_reset, "forget what was said"),
    "help": (_help, "show these lines"),
    "quit": (_quit, "leave"),
}
"""What a line that starts with a slash can do, and how `/help` explains it."""


# Input and output


def note(text: str, style: str = "dim") -> None:
    """Tell the reader something that is no answer."""
    notes.print(text, style=style, soft_wrap=not notes.is_terminal)


@contextmanager
def readable_errors() -> Iterator[None]:
    """End the program with one readable line, instead of a traceback, when a known error comes up."""
    try:
        yield
    except KNOWN_ERRORS as error:
        note(f"Error: {readable(error)}", "red")
        raise typer.Exit(1) from error


def load(llm: EFTChatModel) -> Engine:
    """Load the weights and show what is being waited for."""
    with notes.status("Starting") as status:
        return llm.open(status.update)


def say(conversation: Conversation, text: str) -> None:
    """Say something to the model and print the answer as it comes, then what it took."""
    last = None
    try:
        with closing(conversation.ask(text)) as answer:
            for last in answer:
                typer.echo(last.text, nl=False)
    finally:
        if last is not None:
            typer.echo()
    if last is not None:
        note(statistics(last))


def converse(conversation: Conversation) -> None:
    """Chat until the user leaves."""
    with suppress(ImportError):
        import readline  # noqa: F401  (input() then edits lines and remembers them)
    prompt = "> " if sys.stdin.isatty() else ""
    with suppress(EOFError):
        while True:
            try:
                line = input(prompt)
            except KeyboardInterrupt:
                note("\n/quit or Ctrl-D leaves.")
            else:
                turn(conversation, line)


def turn(conversation: Conversation, line: str) -> None:
    """Deal with one line of the user's; whatever goes wrong, the next one is welcome."""
    try:
        if line.startswith("/"):
            note(run_command(conversation, line))
        elif line.strip():
            say(conversation, line.strip())
    except KeyboardInterrupt:
        note("Stopped.")
    except KNOWN_ERRORS as error:
        note(readable(error), "red")


# What `verify` shows


def verification_table(report: Report) -> Table:
    """The rows of a report, for people to read."""
    table = Table()
    for heading in ("compared", "speculation"):
        table.add_column(heading)
    for heading in ("batch", "tokens", "statistic", "p-value", "accepted"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for row in report.rows:
        table.add_row(*_cells(row), style="bold red" if row.verdict == "failed" else None)
    return table


def _cells(row: Row) -> list[str]:
    equal = row.statistic == "equal"
    return [
        row.what,
        str(row.speculation),
        str(row.batch),
        str(row.tokens),
        f"{row.value:.2%} equal" if equal else f"{row.statistic} = {row.value:.2f}",
        "" if row.p_value is None else f"{row.p_value:.2g}",
        "" if row.acceptance_rate is None else f"{row.acceptance_rate:.0%}",
        row.verdict,
    ]


def verification_summary(report: Report, mixture: dict[str, float]) -> str:
    """The outcome in one line."""
    failed = sum(row.verdict == "failed" for row in report.rows)
    outcome = f"FAILED in {failed} of {len(report.rows)} rows" if failed else "Passed"
    return (
        f"{outcome}: mixture {format_mixture(mixture)}, {report.tokens} tokens compared in "
        f"{report.seconds:.0f} s; p-values fail below {report.least_p_value:.1e} "
        f"({report.alpha:g} / {report.tests} tests, Bonferroni)."
    )


def show_report(report: Report, mixture: dict[str, float], *, as_json: bool) -> None:
    """Print a report to stdout."""
    if as_json:
        typer.echo(json.dumps({"passed": report.passed, "mixture": mixture, **asdict(report)}, indent=2))
    else:
        out = Console(highlight=False)
        out.print(verification_table(report))
        out.print(verification_summary(report, mixture), soft_wrap=True)


def verify_model(llm: EFTChatModel, texts: list[str] | None, **thoroughness: int) -> Report:
    """Verify a chat model's mixture, and say what is being compared meanwhile.

    Args:
        llm: The chat model.
        texts: Prompts; None for the built-in ones.
        **thoroughness: `samples`, `max_tokens` and `seed` of the plan.

    Raises:
        EngineError: Weights that cannot be loaded, or a mixture that cannot be decoded.
    """
    engine = load(llm)
    from langchain_eft import verification  # imports torch

    plan = verification.Plan(
        prompts=verification.encode_prompts(engine.tokenizer, texts or verification.PROMPTS),
        mixture=llm.active_mixture,
        upscale_strength=llm.upscale_strength,
        upscale_top_p=llm.upscale_top_p,
        **thoroughness,
    )
    with notes.status("Starting") as status:
        return verification.verify(engine, plan, status.update if notes.is_terminal else note)


# Options that commands share

Model = Annotated[str | None, typer.Option(help="The large base: a preset, hub id, folder or .gguf file.")]
Mix = Annotated[
    list[str] | None,
    typer.Option(
        "--mix",
        metavar="NAME=WEIGHT",
        help="A behaviour and its weight; repeat it to mix several. '--mix none' is the base model "
        "alone. Left out, it is the model's usual mixture.",
    ),
]
Behavior = Annotated[
    list[str] | None,
    typer.Option(
        "--behavior",
        metavar="NAME=SOURCE",
        help="Add a behaviour: the folder of a LoRA adapter or of a tuned model, the hub id of a tuned "
        f"model, or '{ADAPTER}' and the hub id of an adapter. Repeat it to add several.",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="The small model before fine-tuning, for every --behavior. Tuned models need it; an adapter "
        "knows its own, and a preset has one.",
    ),
]
UpscaleStrength = Annotated[
    float | None, typer.Option(help="How much the large model adds; 0 is the small models alone.")
]
UpscaleTopP = Annotated[
    float | None, typer.Option(help="Below 1, the large model re-weights only likely tokens.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")]


# The commands


@app.callback(invoke_without_command=True)
def main(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Emulated fine-tuning: a large model's knowledge with small models' behaviours."""
    if version:
        typer.echo(f"langchain-eft {metadata.version('langchain-eft')}")
        raise typer.Exit


@app.command()
def chat(
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="Answer this and leave; '-' reads it from stdin. Left out, a conversation starts."
        ),
    ] = None,
    mix: Mix = None,
    model: Model = None,
    behavior: Behavior = None,
    reference: Reference = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Randomness; 0 is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from this share of the probability.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    upscale_strength: UpscaleStrength = None,
    upscale_top_p: UpscaleTopP = None,
    speculation: Annotated[
        str | None,
        typer.Option(
            metavar="auto|off|N",
            help="Tokens that the small models guess ahead: what pays, none, or so many. It changes the "
            "speed, never the answer.",
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Talk to an emulated fine-tuned model: a conversation, or one answer to PROMPT."""
    with readable_errors():
        settings = recipe_settings(
            model, mix, behavior, reference, temperature=temperature, top_p=top_p, max_tokens=max_tokens,
            seed=seed, upscale_strength=upscale_strength, upscale_top_p=upscale_top_p,
            speculation=None if speculation is None else parse_speculation(speculation),
            device=device, dtype=dtype,
        )  # fmt: skip
        conversation = Conversation(settings, system)
        load(conversation.llm)
        if prompt is None:
            note("Say something, or /help.")
            converse(conversation)
        else:
            say(conversation, sys.stdin.read().strip() if prompt == "-" else prompt)


@app.command()
def verify(
    mix: Mix = None,
    model: Model = None,
    behavior: Behavior = None,
    reference: Reference = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prompts, one a line. Left out, six plain questions."),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(min=8, help="Sampled answers per row; of first tokens, 50 times as many."),
    ] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 12,
    seed: Annotated[int, typer.Option(min=0, max=2**32, help="Same seed, same samples.")] = 0,
    upscale_strength: UpscaleStrength = None,
    upscale_top_p: UpscaleTopP = None,
    device: Device = None,
    dtype: Dtype = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check that a recipe is decoded rightly here: greedy and sampled answers against full forwards.

    Takes a few minutes, and leaves with exit code 1 if anything failed.
    """
    with readable_errors():
        texts = read_prompts(prompts) if prompts else None
        settings = recipe_settings(
            model, mix, behavior, reference, upscale_strength=upscale_strength, upscale_top_p=upscale_top_p,
            device=device, dtype=dtype,
        )  # fmt: skip
        llm = build_model(**settings)
        report = verify_model(llm, texts, samples=samples, max_tokens=max_tokens, seed=seed)
    show_report(report, dict(llm.active_mixture.weights), as_json=as_json)
    if not report.passed:
        raise typer.Exit(1)


@app.command()
def bench(
    mix: Mix = None,
    model: Model = None,
    behavior: Behavior = None,
    reference: Reference = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Longest answer, in tokens.")] = 48,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of every way to decode.")] = 3,
    upscale_strength: UpscaleStrength = None,
    upscale_top_p: UpscaleTopP = None,
    device: Device = None,
    dtype: Dtype = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw the figures there; needs the 'plots' extra.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure how fast a recipe decodes: the base alone, plain, with drafts, and in batches."""
    from langchain_eft import benchmark

    with readable_errors():
        settings = recipe_settings(
            model, mix, behavior, reference, upscale_strength=upscale_strength, upscale_top_p=upscale_top_p,
            device=device, dtype=dtype,
        )  # fmt: skip
        llm = build_model(temperature=0, **settings)
        with notes.status("Starting") as status:
            report = benchmark.run_benchmark(
                llm,
                max_tokens=max_tokens,
                repetitions=repetitions,
                progress=status.update if notes.is_terminal else note,
            )
        if plot is not None:
            benchmark.plot(report, plot)
    if as_json:
        typer.echo(report.to_json())
    else:
        Console(highlight=False).print(benchmark.tables(report))


@app.command()
def demo() -> None:
    """Show what emulated fine-tuning does, in half a minute, with the bundled models."""
    from langchain_eft.demo import tour

    with readable_errors():
        # float32 also where a GPU would default to bfloat16: greedy answers are then the same everywhere.
        tour(load(build_model(dtype="float32")), Console(highlight=False))
