"""The remote engines of this process, one for each endpoint."""

from __future__ import annotations

import os
import threading
from collections import defaultdict

from langchain_eft.engine.progress import Progress, silent
from langchain_eft.remote.endpoint import Endpoint
from langchain_eft.remote.engine import RemoteEngine

_open: dict[Endpoint, RemoteEngine] = {}
_opening: defaultdict[Endpoint, threading.Lock] = defaultdict(threading.Lock)


def find_remote(endpoint: Endpoint) -> RemoteEngine | None:
    """The open engine of an endpoint, or None. This asks no server."""
    engine = _open.get(endpoint)
    return None if engine is None or engine.closed else engine


def open_remote(endpoint: Endpoint, progress: Progress = silent) -> RemoteEngine:
    """The engine of an endpoint. On first use the server is asked what it serves.

    Args:
        endpoint: The server, and its model.
        progress: Receives a message when the server is asked.

    Raises:
        EngineError: The server cannot be reached, refuses, or serves no such model.
    """
    with _opening[endpoint]:
        engine = find_remote(endpoint)
        if engine is None:
            engine = _open[endpoint] = RemoteEngine(endpoint, progress)
        return engine


def close_all() -> None:
    """Close every remote engine."""
    for engine in list(_open.values()):
        engine.close()
    _open.clear()


def _forget_all() -> None:
    """Begin anew in a forked process, which has none of the connections."""
    _open.clear()
    _opening.clear()


os.register_at_fork(after_in_child=_forget_all)
