"""What all commands print beside their results: notes and progress on stderr, and errors as one line.

Results go to stdout and everything else to stderr, so that a result can be piped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from pydantic import ValidationError
from rich.console import Console

from langchain_eft.engine.error_text import describe
from langchain_eft.engine.errors import EngineError

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.engine import Engine

notes = Console(stderr=True, highlight=False, markup=False)


class InputError(ValueError):
    """A command-line value cannot be parsed; the message says what to write instead."""


KNOWN_ERRORS = (EngineError, ValidationError, InputError)
"""Errors that their message explains in full. Any other error is a bug and keeps its traceback."""


def readable(error: Exception) -> str:
    """An error's message as one line."""
    return " ".join((describe(error) if isinstance(error, ValidationError) else str(error)).split())


def note(text: str, style: str = "dim") -> None:
    """Print something that is not part of the result."""
    notes.print(text, style=style, soft_wrap=not notes.is_terminal)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn a known error into one line on stderr and exit code 1."""
    try:
        yield
    except KNOWN_ERRORS as error:
        note(f"Error: {readable(error)}", "red")
        raise typer.Exit(1) from error


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show what the program is doing: a status line in a terminal, one line each elsewhere."""
    with notes.status("Starting") as status:
        yield status.update if notes.is_terminal else note


def load(llm: EFTChatModel) -> None:
    """Load the weights, or ask the server, with a status line in a terminal."""
    with notes.status("Starting") as status:
        llm.open(status.update)


def load_local(llm: EFTChatModel) -> Engine:
    """Load the weights into this process, with a status line in a terminal."""
    with notes.status("Starting") as status:
        return llm.open_local(status.update)
