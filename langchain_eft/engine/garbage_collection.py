"""Python's collector of reference cycles."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

_paused = False


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the collector, in all threads. A collector that was off stays off.

    Importing torch and transformers, and loading models, makes about a million objects that stay. The
    collector would visit them again and again, and find nothing to free: a fifth of the time to the first
    token. Only one thread at a time may pause.
    """
    global _paused
    if not gc.isenabled():
        yield
        return
    gc.disable()
    _paused = True
    try:
        yield
    finally:
        _move_to_oldest_generation()
        _resume()


def _move_to_oldest_generation() -> None:
    """Let the next collections of young objects skip what was made in the meantime."""
    if gc.get_freeze_count() == 0:  # what a program has frozen stays frozen
        gc.freeze()
        gc.unfreeze()


def _resume() -> None:
    global _paused
    if _paused:
        _paused = False
        gc.enable()


# No thread of a forked process would end the pause.
os.register_at_fork(after_in_child=_resume)
