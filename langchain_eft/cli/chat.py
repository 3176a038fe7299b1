"""`langchain-eft chat`: a conversation, or one answer."""

from __future__ import annotations

import json
import sys
from contextlib import closing, suppress
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from langchain_eft.cli.console import (
    KNOWN_ERRORS,
    InputError,
    load,
    note,
    readable,
    readable_errors,
)
from langchain_eft.cli.conversation import Conversation, run_command
from langchain_eft.cli.options import (
    AnswerOptions,
    EndpointOptions,
    JsonFlag,
    RecipeOptions,
    Seed,
    SystemOption,
    flag,
    option_groups,
)
from langchain_eft.cli.parse_recipe import describe_mixture, parse_speculation

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk


@option_groups
def chat(
    recipe: RecipeOptions,
    answers: AnswerOptions,
    endpoint: EndpointOptions,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="Answer this prompt and exit; '-' reads it from stdin. Left out, a conversation starts."
        ),
    ] = None,
    *,
    system: SystemOption = None,
    seed: Seed = None,
    speculation: Annotated[
        str | None,
        typer.Option(
            metavar="auto|off|N",
            help="Tokens that the small models draft in each round: as many as pay off, none, or N. They "
            "change the speed and never the answer.",
        ),
    ] = None,
    trace: Annotated[
        bool,
        flag("--trace", help="Color each token by what the behaviors and the base changed in it."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Talk to an emulated fine-tuned model: a conversation, or one answer to PROMPT."""
    with readable_errors():
        if as_json and prompt is None:
            raise InputError("--json prints one answer: give a PROMPT.")
        question = None if prompt is None else read_prompt(prompt)
        settings = recipe.settings(
            seed=seed,
            speculation=None if speculation is None else parse_speculation(speculation),
            trace=trace or None,
            **vars(answers),
            **vars(endpoint),
        )
        conversation = Conversation(settings, system)
        load(conversation.llm)
        if question is None:
            note("Type a message, or /help.")
            converse(conversation)
        elif as_json:
            typer.echo(answer_as_json(conversation, question))
        else:
            answer(conversation, question)


def read_prompt(prompt: str) -> str:
    """The prompt as typed, or standard input for `-`.

    Raises:
        InputError: It is empty, or not UTF-8.
    """
    try:
        text = sys.stdin.buffer.read().decode().strip() if prompt == "-" else prompt
    except UnicodeDecodeError as error:
        raise InputError(f"Standard input is not UTF-8 ({error}): convert it first.") from error
    if not text.strip():
        raise InputError("The prompt is empty: write a question, or leave PROMPT out for a conversation.")
    return text


def converse(conversation: Conversation) -> None:
    """Read lines and answer them until the user quits."""
    with suppress(ImportError):
        import readline  # noqa: F401  (input() then edits lines and remembers them)
    prompt = "> " if sys.stdin.isatty() else ""
    with suppress(EOFError):
        while True:
            try:
                line = input(prompt)
            except KeyboardInterrupt:
                note("\nType /quit or press Ctrl-D to end the chat.")
            else:
                handle_line(conversation, line)


def handle_line(conversation: Conversation, line: str) -> None:
    """Run a slash command, or answer a message. Known errors and Ctrl-C do not end the conversation."""
    try:
        if line.startswith("/"):
            note(run_command(conversation, line))
        elif line.strip():
            answer(conversation, line.strip())
    except KeyboardInterrupt:
        note("Stopped.")
    except KNOWN_ERRORS as error:
        text = readable(error)
        for option, command in _COMMAND_OF.items():
            text = text.replace(option, command)
        note(text, "red")


_COMMAND_OF = {"--mix": "/mix", "--temperature": "/temp", "--max-tokens": "/max", "--seed": "/seed"}
"""What a conversation changes by a slash command."""


def answer(conversation: Conversation, text: str) -> None:
    """Print the answer to a message while it streams, then its statistics."""
    chunks: list[AIMessageChunk] = []
    try:
        with closing(conversation.ask(text)) as stream:
            for chunk in stream:
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


def answer_as_json(conversation: Conversation, text: str) -> str:
    """The answer to a message with its statistics, and its trace if there is one, as JSON."""
    message = reduce(add, conversation.ask(text))
    fields = message.model_dump(mode="json", include={"content", "usage_metadata", "response_metadata"})
    return json.dumps(fields, ensure_ascii=False, indent=2)


def show(chunk: AIMessageChunk) -> None:
    """Print a part of an answer. A terminal shows a traced one in the colors of its trace."""
    from langchain_eft.trace.tokens import traced_tokens

    console = Console(highlight=False)
    tokens = traced_tokens(chunk) if console.is_terminal else []
    if not tokens:
        typer.echo(chunk.text, nl=False)
        return
    from langchain_eft.trace.view import style

    for token in tokens:
        console.print(Text(token.text, style(token)), end="", soft_wrap=True)


def statistics(last: AIMessageChunk) -> str:
    """The figures of an answer, read from its last chunk, as one line."""
    info, usage = last.response_metadata, last.usage_metadata
    eft = info["eft"]
    parts = [
        f"{usage['output_tokens'] if usage else 0} tokens",
        f"{eft['tokens_per_second']:.1f} tokens/s",
        info["finish_reason"],
        f"mixture {describe_mixture(eft['mixture'])}",
    ]
    if eft["drafted"]:
        parts.append(
            f"{eft['accepted']} of {eft['drafted']} draft tokens accepted ({eft['acceptance_rate']:.0%})"
        )
    return " · ".join(parts)
