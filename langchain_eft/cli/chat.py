"""`langchain-eft chat`: a conversation, or one answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.text import Text

from langchain_eft.cli.console import KNOWN_ERRORS, InputError, load, note, readable, readable_errors
from langchain_eft.cli.options import (
    NOTHING,
    BaseTemplate,
    Behavior,
    ChatTemplate,
    Device,
    Dtype,
    Mix,
    Model,
    Reference,
    UpscaleStrength,
    UpscaleTopP,
    build_model,
    format_mixture,
    parse_mixture,
    parse_speculation,
    recipe_settings,
)
from langchain_eft.engine.recipe.frozen import known

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk, BaseMessage

    from langchain_eft.chat_models import EFTChatModel


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
    mixture = format_mixture(llm.active_mixture.as_json())
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


def say(conversation: Conversation, text: str) -> None:
    """Say something to the model and print the answer as it comes, then what it took."""
    chunks: list[AIMessageChunk] = []
    try:
        with closing(conversation.ask(text)) as answer:
            for chunk in answer:
                chunks.append(chunk)
                show(chunk)
    finally:
        if chunks:
            typer.echo()
    if chunks:
        note(statistics(chunks[-1]))
    if conversation.llm.trace and chunks:
        from langchain_eft.trace.trace import EFTTrace

        note(str(EFTTrace.from_chunks(chunks).summary()))


def show(chunk: AIMessageChunk) -> None:
    """Print a part of an answer, in a terminal with the colours of its trace if it has one."""
    from langchain_eft.trace.tokens import traced_tokens

    console = Console(highlight=False)
    tokens = traced_tokens(chunk) if console.is_terminal else []
    if not tokens:
        typer.echo(chunk.text, nl=False)
        return
    from langchain_eft.trace.view import style

    for token in tokens:
        console.print(Text(token.text, style(token)), end="", soft_wrap=True)


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
    chat_template: ChatTemplate = None,
    base_template: BaseTemplate = None,
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
    *,
    trace: Annotated[
        bool, typer.Option("--trace", help="Colour the answer by what the behaviours and the base changed.")
    ] = False,
) -> None:
    """Talk to an emulated fine-tuned model: a conversation, or one answer to PROMPT."""
    with readable_errors():
        settings = recipe_settings(
            model, mix, behavior, reference, chat_template=chat_template, base_template=base_template,
            temperature=temperature, top_p=top_p, max_tokens=max_tokens,
            seed=seed, upscale_strength=upscale_strength, upscale_top_p=upscale_top_p,
            speculation=None if speculation is None else parse_speculation(speculation),
            device=device, dtype=dtype, trace=trace or None,
        )  # fmt: skip
        conversation = Conversation(settings, system)
        load(conversation.llm)
        if prompt is None:
            note("Say something, or /help.")
            converse(conversation)
        else:
            say(conversation, sys.stdin.read().strip() if prompt == "-" else prompt)
