"""The command line: `langchain-eft chat` and `langchain-eft demo`.

Answers go to stdout and everything else to stderr, so that an answer can be piped. Nothing here imports torch
before weights are needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from pydantic import ValidationError
from rich.console import Console

from langchain_eft.behaviors import known
from langchain_eft.engine.errors import EngineError

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk, BaseMessage

    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.engine import Engine

NOTHING = "none"
"""What `--mix`, `/mix` and `/system` call the empty mixture and the absent system message."""

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
    tokens = usage["output_tokens"] if usage else 0
    speed = f"{info['eft']['tokens_per_second']:.1f} tokens/s"
    return " · ".join(
        [
            f"{tokens} tokens",
            speed,
            info["finish_reason"],
            f"mixture {format_mixture(info['eft']['mixture'])}",
        ]
    )


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
    mix: Annotated[
        list[str] | None,
        typer.Option(
            "--mix",
            metavar="NAME=WEIGHT",
            help="A behaviour and its weight; repeat it to mix several. '--mix none' is the base model "
            "alone. Left out, it is the model's usual mixture.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The large base: a preset, hub id, folder or .gguf file.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Randomness; 0 is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from this share of the probability.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    upscale_strength: Annotated[
        float | None, typer.Option(help="How much the large model adds; 0 is the small models alone.")
    ] = None,
    upscale_top_p: Annotated[
        float | None, typer.Option(help="Below 1, the large model re-weights only likely tokens.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
) -> None:
    """Talk to an emulated fine-tuned model: a conversation, or one answer to PROMPT."""
    with readable_errors():
        settings = {
            "model": model, "mixture": None if mix is None else parse_mixture(mix),
            "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed,
            "upscale_strength": upscale_strength, "upscale_top_p": upscale_top_p,
            "device": device, "dtype": dtype,
        }  # fmt: skip
        given = {name: value for name, value in settings.items() if value is not None}
        conversation = Conversation(given, system)
        load(conversation.llm)
        if prompt is None:
            note("Say something, or /help.")
            converse(conversation)
        else:
            say(conversation, sys.stdin.read().strip() if prompt == "-" else prompt)


@app.command()
def demo() -> None:
    """Show what emulated fine-tuning does, in half a minute, with the bundled models."""
    from langchain_eft.demo import tour

    with readable_errors():
        # float32 also where a GPU would default to bfloat16: greedy answers are then the same everywhere.
        tour(load(build_model(dtype="float32")), Console(highlight=False))
