"""A conversation of several turns, and the slash commands that change it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

from langchain_eft.cli.console import InputError
from langchain_eft.cli.options import build_model
from langchain_eft.cli.parse_recipe import describe_mixture
from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.recipe.notation import NOTHING, parse_mixture

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk, BaseMessage

    from langchain_eft.chat_models import EFTChatModel


class Conversation:
    """A chat of several turns with one chat model, whose settings may change between turns.

    Attributes:
        settings: Fields of the chat model that differ from its defaults.
        system: Text of the system message; None leaves it to the chat template.
        history: The messages so far, without the system message.
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

        Closing the stream stops the answer and keeps the part that was streamed. A turn that fails leaves no
        trace in the history.
        """
        from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

        before, question, answer = self.history, HumanMessage(text), ""
        system = [SystemMessage(self.system)] if self.system else []
        stream = cast("Generator[AIMessageChunk]", self.llm.stream([*system, *before, question]))
        try:
            with closing(stream):
                for chunk in stream:
                    answer += chunk.text
                    self.history = [*before, question, AIMessage(answer)]
                    yield chunk
        except Exception:
            self.history = before
            raise

    def change(self, **settings: Any) -> None:
        """Replace some settings.

        Raises:
            ValidationError: The chat model rejects a value; nothing has changed then.
        """
        changed = {**self.settings, **settings}
        self.llm = self._build(**changed)
        self.settings = changed


def run_command(conversation: Conversation, line: str) -> str:
    """Run a slash command.

    Returns:
        The text to show to the user.

    Raises:
        InputError: The command is unknown.
        RecipeError: A mixture cannot be parsed.
        ValidationError: The chat model rejects a value; nothing has changed then.
        EOFError: The user quits.
    """
    name, _, argument = line.removeprefix("/").partition(" ")
    if name not in COMMANDS:
        raise InputError(
            f"Unknown command {'/' + name!r}: the commands are "
            f"{quoted_names('/' + each for each in COMMANDS)}. "
            "Put a space in front to send the line to the model."
        )
    run, _ = COMMANDS[name]
    return run(conversation, argument.strip())


def _mix(conversation: Conversation, argument: str) -> str:
    if argument:
        conversation.change(mixture=parse_mixture(argument.replace(",", " ").split()))
    llm = conversation.llm
    mixture = describe_mixture(llm.active_mixture.as_json())
    return f"Mixture: {mixture}. Behaviors: {quoted_names(llm.recipe.behaviors)}."


def _setting(field: str, label: str) -> Callable[[Conversation, str], str]:
    """A command that shows or sets a field of the chat model."""

    def show_or_set(conversation: Conversation, argument: str) -> str:
        if argument:
            conversation.change(**{field: None if argument == NOTHING else argument})
        value = getattr(conversation.llm, field)
        shown = f"{value:g}" if isinstance(value, float) else NOTHING if value is None else value
        return f"{label}: {shown}."

    return show_or_set


def _system(conversation: Conversation, argument: str) -> str:
    if argument:
        conversation.system = None if argument == NOTHING else argument
    return f"System message: {conversation.system or NOTHING}"


def _reset(conversation: Conversation, _: str) -> str:
    conversation.history = []
    return "The conversation starts again; the settings stay."


def _help(_: Conversation, __: str) -> str:
    lines = [f"{'/' + name:8} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join([*lines, "Ctrl-C   stop an answer", "Ctrl-D   end the chat"])


def _quit(_: Conversation, __: str) -> str:
    raise EOFError


COMMANDS: dict[str, tuple[Callable[[Conversation, str], str], str]] = {
    "mix": (_mix, "show the mixture; /mix pirate=0.7 concise=1 replaces it, /mix none is the base alone"),
    "temp": (
        _setting("temperature", "Temperature"),
        "show the temperature; /temp 0.2 sets it, /temp 0 is greedy",
    ),
    "max": (
        _setting("max_tokens", "Tokens of an answer"),
        "show how long answers may be; /max 200 sets it",
    ),
    "seed": (_setting("seed", "Seed"), "show the seed; /seed 7 sets it, /seed none draws anew each time"),
    "system": (_system, "show the system message; /system TEXT sets it, /system none removes it"),
    "reset": (_reset, "start the conversation again; the settings stay"),
    "help": (_help, "show this help"),
    "quit": (_quit, "end the chat"),
}
"""The slash commands by name: the function to run, and its line in `/help`."""
