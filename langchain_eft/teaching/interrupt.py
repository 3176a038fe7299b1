"""Ctrl-C during a training: end it at the next step, with a checkpoint. A second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class StopRequest:
    """Whether the user has asked to stop.

    Attributes:
        requested: True once the user has.
    """

    requested: bool = False


@contextmanager
def stop_on_interrupt(stop: StopRequest) -> Iterator[None]:
    """Let Ctrl-C set a request instead of raising an error. Outside the main thread this changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(_: int, __: Any) -> None:
        stop.requested = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
