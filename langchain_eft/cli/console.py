"""What every command shares with its reader: notes on stderr, errors as one line, progress.

Answers go to stdout and everything else to stderr, so that an answer can be piped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from pydantic import ValidationError
from rich.console import Console

from langchain_eft.engine.errors import EngineError

if TYPE_CHECKING:
    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.engine import Engine

notes = Console(stderr=True, highlight=False, markup=False)


class InputError(ValueError):
    """Something typed that cannot be understood; the message says what would be."""


KNOWN_ERRORS = (EngineError, ValidationError, InputError)
"""Errors whose message is all that a reader needs; anything else is a bug and keeps its traceback."""


def readable(error: Exception) -> str:
    """An error as one line."""
    from langchain_eft.errors import describe  # imports LangChain

    return " ".join((describe(error) if isinstance(error, ValidationError) else str(error)).split())


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
