"""What all commands print beside their results: notes and progress on stderr, and errors as one line.

Results go to stdout and everything else to stderr, so that a result can be piped.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from langchain_eft.cli.wording import Wording
from langchain_eft.engine.error_text import describe
from langchain_eft.engine.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_eft.chat_models import EFTChatModel
    from langchain_eft.engine.engine import Engine

notes = Console(stderr=True, highlight=False, markup=False)


class InputError(ValueError):
    """A command-line value cannot be parsed; the message says what to write instead."""


KNOWN_ERRORS = (EngineError, ValidationError, InputError)
"""Errors that their message explains in full. Any other error is a bug and keeps its traceback."""


def require_folder(option: str, file: Path | None) -> None:
    """Ask for the folder of a file to write before the work that it is for.

    Raises:
        InputError: There is no such folder.
    """
    if file is not None and not file.parent.is_dir():
        raise InputError(
            f"{option} {str(file)!r}: the folder {str(file.parent)!r} does not exist: create it."
        )


def quiet_libraries() -> None:
    """Keep what other libraries say while they start out of the commands' output.

    transformers imports torchao wherever it is installed, which warns of kernels for GPUs that are not there.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of a format conversion; the engine reports it itself
    retries = "huggingface_hub.utils._http"  # the last one is an error of ours
    for name in ("bitsandbytes.backends.cpu.ops", "torch.utils._pytree", "torchao", retries):
        logging.getLogger(name).setLevel(logging.ERROR)


_wording = Wording()


def speak_of(parameters: Iterable[Any]) -> None:
    """Let errors name the options of the running command: these are its parameters."""
    global _wording
    _wording = Wording(parameters)


def readable(error: Exception) -> str:
    """An error's message as one line, in the words of the running command."""
    text = describe(error) if isinstance(error, ValidationError) else str(error)
    return _wording.translated(" ".join(text.split()))


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
