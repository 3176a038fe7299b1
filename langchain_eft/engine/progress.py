"""Progress messages while an engine opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]
"""Told, in a few words, what is being waited for."""


def silent(_: str) -> None:
    """Tell nothing."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and warnings quiet: progress is told, and what is missing is checked, here."""
    from transformers import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
