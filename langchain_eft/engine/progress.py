"""Progress messages, such as those while an engine opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]
"""A callback for progress messages. Each message says in a few words what is being done."""


def silent(_: str) -> None:
    """Ignore all progress messages."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and warnings.

    The loader reports progress itself, and checks for missing weights.
    """
    from transformers import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars_enabled:
            transformers_logging.enable_progress_bar()
