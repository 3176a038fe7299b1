"""The open engines of a process: one for each key, which all callers share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from langchain_eft.engine.base_engine import BaseEngine
from langchain_eft.engine.progress import Progress, silent

Key = TypeVar("Key", bound=Hashable)
E = TypeVar("E", bound=BaseEngine)


class OpenEngines(Generic[Key, E]):
    """Engines that are opened on first use, and shared until they are closed.

    Args:
        make: Opens the engine of a key.
        one_at_a_time: Whether one is opened once others have opened or closed, for they share a memory.
    """

    def __init__(self, make: Callable[[Key, Progress], E], *, one_at_a_time: bool = False) -> None:
        self._make, self._one_at_a_time = make, one_at_a_time
        self._forget_all()
        os.register_at_fork(after_in_child=self._forget_all)

    def find(self, key: Key) -> E | None:
        """The open engine of a key, or None. This does not wait for an engine that is being opened."""
        engine = self._open.get(key)
        return None if engine is None or engine.closed else engine

    def open(self, key: Key, progress: Progress = silent) -> E:
        """The engine of a key, opened on first use.

        Args:
            key: What tells the engines apart.
            progress: Receives messages while the engine opens.

        Raises:
            EngineError: The engine cannot be opened.
        """
        with self._opening.setdefault(None if self._one_at_a_time else key, threading.RLock()):
            engine = self.find(key)
            if engine is None:
                if self._one_at_a_time:
                    for closing in [each for each in tuple(self._open.values()) if each.closed]:
                        closing.close()  # waits until its memory is free
                engine = self._open[key] = self._make(key, progress)
            return engine

    def forget(self, engine: E) -> None:
        """Keep no reference to an engine, for it is closed."""
        for key in [key for key, each in tuple(self._open.items()) if each is engine]:
            self._open.pop(key, None)

    def close_all(self) -> None:
        """Close every engine."""
        for engine in tuple(self._open.values()):
            engine.close()
            self.forget(engine)

    def _forget_all(self) -> None:
        """Begin anew: a forked process has no thread that decodes or releases a lock, and no connection."""
        self._open: dict[Key, E] = {}
        self._opening: dict[Key | None, threading.RLock] = {}
