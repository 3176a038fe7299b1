"""A `langchain-eft serve` process, and raw connections to it."""

import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from langchain_eft.cli import app
from unit_tests.forked import Forked, empty_cache

PATIENCE = 540
"""Seconds that a process may take for anything; a machine can be busy. A minute later the suite's own limit
(`faulthandler_timeout`) would end the worker, and nobody would say what was waited for."""


@dataclass
class ServerProcess:
    process: subprocess.Popen | Forked
    reader: threading.Thread | None = None
    lines: list = field(default_factory=list)
    """What it has written to stderr."""

    url: str = ""

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self):
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    @property
    def address(self):
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def wait_for(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None or condition(), "\n".join(self.lines)
            assert time.monotonic() < deadline, "\n".join((f"Nothing for {PATIENCE} s after:", *self.lines))
            time.sleep(0.01)

    def find_url(self):
        served = [line for line in self.lines if line.startswith("Serving on ")]
        self.url = served[0].split()[2].rstrip(";") if served else ""
        return self.url

    def ready(self):
        return any(line.get("event") == "ready" for line in self.log)

    def ended(self):
        """Its status, once it has ended and all that it wrote is read."""
        status = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        return status


@contextmanager
def server(*options, folder=None, ready=True, serve=app):
    """A server process; it is killed at the end, if it has not ended by itself.

    Args:
        options: Of `langchain-eft serve`.
        folder: A tiny family's, served by a forked process; None serves the bundled weights, as a user does.
        ready: Wait until its weights are loaded.
        serve: What a forked process calls.
    """
    arguments = ["serve", "--kv-cache-tokens", "8192", "--port", "0", *map(str, options)]
    running = ServerProcess(_start(arguments) if folder is None else _fork(arguments, folder, serve))
    running.reader = threading.Thread(target=running.read, daemon=True)
    running.reader.start()
    try:
        running.wait_for(running.find_url)
        if ready:
            running.wait_for(running.ready)
        yield running
    finally:
        running.process.kill()
        running.process.wait(PATIENCE)
        running.reader.join(PATIENCE)
        running.process.stderr.close()


def _start(arguments):
    command = [sys.executable, "-m", "langchain_eft", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603


def _fork(arguments, folder, serve):
    family = ["--model", folder / "base", "--behavior", f"one={folder / 'one'}", "--mix", "one=1"]
    return Forked(
        serve, argv=["langchain-eft", *arguments, *family], environment=empty_cache(folder / "cache")
    )


def body(*, tokens=900, **more):
    """A request whose answer has this many tokens."""
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "base", "messages": messages, "max_tokens": tokens, "logit_bias": {0: -1000}, **more}


def event_lines(pieces):
    """Lines of server-sent events. Only line feeds end them, not U+0085 in a text."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from (line.rstrip("\r") for line in lines)


@dataclass
class Stream:
    """A streamed answer that is being read in a thread."""

    url: str
    status: int = 0
    chunks: list = field(default_factory=list)
    done: bool = False
    broken: bool = False

    def start(self, **more):
        self._thread = threading.Thread(target=self._read, args=(body(stream=True, **more),), daemon=True)
        self._thread.start()
        return self

    def _read(self, asked):
        try:
            with httpx.stream(
                "POST", f"{self.url}/v1/chat/completions", json=asked, timeout=PATIENCE
            ) as answer:
                self.status = answer.status_code
                for line in event_lines(answer.iter_text()):
                    if line == "data: [DONE]":
                        self.done = True
                    elif line.startswith("data: "):
                        self.chunks.append(json.loads(line.removeprefix("data: ")))
        except httpx.HTTPError:
            self.broken = True

    def join(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"{len(self.chunks)} chunks after {PATIENCE} s, and no end"
        return self

    @property
    def finish_reason(self):
        return self.chunks[-1]["choices"][0]["finish_reason"] if "choices" in self.chunks[-1] else None


def raw(address, *pieces, pause=0.0):
    """What a server answers to bytes on a connection, until it closes it."""
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received
