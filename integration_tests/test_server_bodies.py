"""Bodies of every size beside a neighbor: nobody waits, memory comes back, and the process goes on.

`LANGCHAIN_EFT_FUZZ`, a factor, says how many of the generated bodies are sent: from 60 on, all of them.
"""

import http.client
import json
import random
import threading
import time

import psutil
import pytest

from integration_tests.body_cases import grown_bodies, models
from integration_tests.clocked_serve import clocked
from integration_tests.neighbor import neighbor
from integration_tests.serve_process import PATIENCE, server
from unit_tests.helpers import FUZZ
from unit_tests.tiny import build

pytestmark = pytest.mark.slow

CASES = 15 * FUZZ
"""Bodies of each number of entries."""

LONGEST_CALLBACK = 0.1
"""Seconds of processor time for which the event loop may do one thing."""

LONGEST_WAIT = 0.25
"""Seconds that a neighbor may wait longer than it does while nothing else is sent."""

TRIES = 4
"""How often a body is sent after which the neighbor waited: a busy machine does so once, a body each time."""

MEGABYTES = 2**20
MOST_MEMORY = 20
"""How many times the size of its body a request's memory may be, beyond what small ones take as well."""

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def chat(**more):
    return {"model": "base", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1, **more}


def known():
    """Bodies that have stopped a server, and the largest ones that are still read."""
    return {
        "unknown fields": (CHAT, chat(**{f"x{number}": 1 for number in range(300_000)})),
        "lists as messages": (CHAT, chat(messages=[[]] * 2_000_000)),
        "wrong messages": (CHAT, chat(messages=[{"role": "usr", "content": 1}] * 250_000)),
        "empty messages": (CHAT, chat(messages=[{"role": "user", "content": ""}] * 190_000)),
        "contexts": (
            TEXT,
            {"model": "base", "prompt": [5], "contexts": {str(number): [5] for number in range(300_000)}},
        ),
        "stop strings": (CHAT, chat(stop=[f"{number:06}" for number in range(800_000)])),
        "one long text": (CHAT, chat(messages=[{"role": "user", "content": "a" * (8 * MEGABYTES - 200)}])),
        "a name of digits": (CHAT, chat(model="base:one=0." + "5" * 7 * MEGABYTES)),
        "long token lists": (TEXT, {"model": "base", "prompt": [5] * 500_000}),
    }


def generated():
    rng, chosen = random.Random(1), []
    for count in (1, 1000, 100_000):
        of_count = [
            (where, path, content)
            for path, model in models().items()
            for where, content in grown_bodies(path, model, count)
        ]
        chosen += rng.sample(of_count, min(CASES, len(of_count)))
    return chosen


class Memory:
    """The memory of a process, and the most of it since the last look."""

    def __init__(self, pid):
        self._process, self._most = psutil.Process(pid), 0
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def now(self):
        return self._process.memory_info().rss

    def most(self):
        most, self._most = max(self._most, self.now), 0
        return most

    def _watch(self):
        while psutil.pid_exists(self._process.pid):
            try:
                self._most = max(self._most, self.now)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.005)


def sent(address, path, content):
    """The status and the size of an answer."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    connection.request("POST", path, content, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    size = len(answer.read())
    connection.close()
    return answer.status, size


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = build(tmp_path_factory.mktemp("family")).folder
    with server(folder=folder, serve=clocked) as process:
        yield process


def test_bodies_of_any_size_stop_nobody_else(running):
    large = [(name, path, json.dumps(asked).encode()) for name, (path, asked) in known().items()]
    cases = [*large, *generated()]
    memory = Memory(running.process.pid)
    with neighbor(running.address) as other:
        for path, content in ((path, content) for _, path, content in large[-3:]):
            sent(running.address, path, content)  # what is loaded or made once
        other.worst_wait()
        time.sleep(2)
        usual, before = other.worst_wait(), memory.now
        faults = []
        for name, path, content in cases:
            start = memory.now
            memory.most()
            status, size = sent(running.address, path, content)
            wait = other.worst_wait()
            grown = memory.most() - start
            if status not in {200, 400, 403, 404, 422}:
                faults.append(f"{name}: status {status}")
            if status != 200 and size > 50_000:
                faults.append(f"{name}: an error of {size} bytes")
            if grown > MOST_MEMORY * len(content) + 64 * MEGABYTES:
                faults.append(f"{name}: {grown / MEGABYTES:.0f} MiB for {len(content) / MEGABYTES:.1f} MiB")
            for _ in range(TRIES - 1):
                if wait > usual + LONGEST_WAIT:
                    sent(running.address, path, content)
                    wait = min(wait, other.worst_wait())
            if wait > usual + LONGEST_WAIT:
                faults.append(f"{name}: the neighbor waited {wait:.2f} s")
        after = memory.now
    slow = [line for line in running.log if line.get("event") == "slow_callback"]
    long = [each for each in slow if each["seconds"] > LONGEST_CALLBACK]
    faults += [f"{each['callback']}: {each['seconds']} s" for each in long]
    assert not faults, "\n".join(faults)
    assert after - before < 400 * MEGABYTES  # the largest bodies alone would fill a gigabyte
    assert running.process.poll() is None
