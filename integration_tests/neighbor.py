"""Another client of a server, in a process of its own: how long it waits for its stream and for `/health`."""

import http.client
import json
import multiprocessing
import threading
import time
from contextlib import contextmanager

from integration_tests.serve_process import PATIENCE, body

PAUSE = 0.02
"""Seconds between two questions for `/health`."""


class Neighbor:
    """Asks a server all the time."""

    def __init__(self, address):
        context = multiprocessing.get_context("spawn")
        self._worst = context.Array("d", [0.0, 0.0])
        self._process = context.Process(target=_ask, args=(address, self._worst), daemon=True)

    def worst_wait(self):
        """Seconds of the longest wait since the last call: for a piece of a stream, or for `/health`."""
        with self._worst:
            worst, self._worst[:] = max(self._worst), [0.0, 0.0]
        return worst

    def start(self):
        self._process.start()

    def stop(self):
        self._process.kill()
        self._process.join()


@contextmanager
def neighbor(address):
    """A neighbor that has begun to ask."""
    asking = Neighbor(address)
    asking.start()
    try:
        deadline = time.monotonic() + PATIENCE
        while not all(asking._worst):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield asking
    finally:
        asking.stop()


def _ask(address, worst):
    threading.Thread(target=_stream, args=(address, worst), daemon=True).start()
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    while True:
        began = time.monotonic()
        connection.request("GET", "/health")
        connection.getresponse().read()
        _note(worst, 0, time.monotonic() - began)
        time.sleep(PAUSE)


def _stream(address, worst):
    asked = json.dumps(body(stream=True, speculation="off"))
    while True:
        connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
        connection.request("POST", "/v1/chat/completions", asked, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.readline()  # the first token waits for a place in the batch
        last = time.monotonic()
        while answer.readline():
            now = time.monotonic()
            _note(worst, 1, now - last)
            last = now
        connection.close()


def _note(worst, number, seconds):
    with worst:
        worst[number] = max(worst[number], seconds)
