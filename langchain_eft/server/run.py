"""A server process: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from langchain_eft.engine.errors import DeviceLostError, EngineError
from langchain_eft.server.access.draining import Draining
from langchain_eft.server.monitoring.request_log import log, logger
from langchain_eft.server.serving import Serving

_CANCEL_SECONDS = 1
"""Seconds that answers get to say that they are cut, once `--drain-seconds` are over."""


class AddressError(EngineError, OSError):
    """The server cannot listen on its address."""


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address, before weights are loaded for nothing.

    Args:
        host: Name or address of this machine.
        port: The port; 0 is any free one.

    Raises:
        AddressError: The port is in use, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise AddressError(
            f"The server cannot listen on {host}, port {port} ({reason}): choose another "
            "with --host or --port, or stop what uses it. '--port 0' is any free port."
        ) from error
    # Connections inherit it. Without it, the second part of an answer waits 40 ms for the acknowledgment of
    # the first, and asyncio sets it only for addresses that it listens on itself.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def base_url(listening: socket.socket) -> str:
    """The URL of a listening socket, for this machine."""
    host, port = listening.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: FastAPI, listening: socket.socket, log_to: logging.Handler | None = None) -> None:
    """Serve until a signal comes and running answers have ended, or the engine ends by itself.

    Args:
        app: What `create_app` returns.
        listening: What `listen` returns.
        log_to: Receives the server's log. The default writes it to stderr.

    Raises:
        EngineError: The engine cannot be opened, or has ended.
    """
    logger.handlers = [log_to or lines_on_stderr()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    serving: Serving = app.state.serving
    config = uvicorn.Config(
        app,
        http="h11",  # it bounds headers
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_CANCEL_SECONDS,
    )
    server = _DrainingServer(config, app.state.draining, serving)
    asyncio.run(server.serve(sockets=[listening]))
    if serving.failure is not None:
        raise serving.failure
    if serving.has_ended and not app.state.draining.begun:
        raise DeviceLostError("The engine has ended, because its device failed: start the server again.")


def lines_on_stderr() -> logging.Handler:
    """Writes one line a record and nothing around it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


class _DrainingServer(uvicorn.Server):
    """Goes on listening after the first signal until answers have ended; the second one ends the process."""

    def __init__(self, config: uvicorn.Config, draining: Draining, serving: Serving) -> None:
        super().__init__(config)
        self._draining, self._serving = draining, serving

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to drain. A second signal, or one while weights are loaded, ends the process at once."""
        if self._draining.begun or not self._serving.is_open:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._draining.begin()
        log(event="draining", running=self._draining.running)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        broken = self._serving.failure is not None or self._serving.has_ended
        self.should_exit = self.should_exit or self._draining.over or broken
        return await super().on_tick(counter)
