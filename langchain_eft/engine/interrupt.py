"""Stopping a thread by an exception, at a moment at which that leaves nothing broken."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_PAUSE = 0.01
"""Seconds between two looks at the thread."""

_LOCKING = ("importlib._bootstrap", "importlib._bootstrap_external", "logging")
"""Modules that take locks by calls: an exception just behind such a call would leave the lock taken."""


def interrupt(thread: threading.Thread, error: type[BaseException], needed: Callable[[], bool]) -> None:
    """Raise an exception in a thread, and return once it is raised or has become needless.

    A thread that imports a module is left alone until the import has ended: it may hold a lock that other
    threads wait for, and half a module would fail whoever imports it next. So is one that logs.

    Args:
        thread: The thread to stop.
        error: What is raised in it, before its next instruction of Python.
        needed: Whether the thread still has to be stopped.
    """
    while thread.is_alive() and needed():
        if _raise_if_harmless(thread, error):
            return
        time.sleep(_PAUSE)


def _raise_if_harmless(thread: threading.Thread, error: type[BaseException]) -> bool:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # the thread must stay where it is seen
    try:
        frame = sys._current_frames().get(thread.ident or 0)
        harmless = frame is not None and not _holds_locks(frame)
        if harmless:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error)
            )
        return harmless
    finally:
        sys.setswitchinterval(interval)


def _holds_locks(top: FrameType) -> bool:
    """Whether a thread that executes this function may hold a lock that an exception would leave taken."""
    return any(frame.f_globals.get("__name__") in _LOCKING for frame in _stack(top))


def _stack(top: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = top
    while frame is not None:
        yield frame
        frame = frame.f_back
