"""An exception stops a thread, but never in the middle of an import."""

import importlib
import logging
import sys
import threading
import time

import pytest

from langchain_eft.engine.interrupt import interrupt
from unit_tests.helpers import PATIENCE

SLOW_MODULE = """
import time
begun.set()
for _ in range(30):
    time.sleep(0.01)
complete = True
"""


class Stopped(BaseException):
    pass


@pytest.fixture
def run():
    """Runs a function in a thread until it is stopped; returns the thread and what it raised."""
    threads = []

    def start(function):
        raised = []

        def record():
            try:
                function()
            except BaseException as error:  # noqa: BLE001
                raised.append(error)

        thread = threading.Thread(target=record, daemon=True)
        threads.append(thread)
        thread.start()
        return thread, raised

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def endlessly():
    while True:
        time.sleep(0.001)


def stop(thread, raised):
    """Interrupt a thread, which then ends by the exception."""
    interrupt(thread, Stopped, lambda: True)
    thread.join(PATIENCE)
    assert [type(error) for error in raised] == [Stopped]


def test_a_thread_is_stopped(run):
    thread, raised = run(endlessly)
    stop(thread, raised)


def test_an_import_is_left_to_end(run, tmp_path, monkeypatch):
    begun = threading.Event()
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE.replace("begun", "__import__('builtins').begun"))
    monkeypatch.setattr("builtins.begun", begun, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_module", raising=False)

    def work():
        importlib.import_module("slow_module")
        endlessly()

    thread, raised = run(work)
    assert begun.wait(PATIENCE)
    stop(thread, raised)
    assert sys.modules["slow_module"].complete


def test_a_thread_that_waits_is_stopped_and_leaves_its_lock(run):
    condition = threading.Condition()

    def work():
        while True:
            with condition:
                condition.wait(0.0001)

    for _ in range(50):
        thread, raised = run(work)
        stop(thread, raised)
        assert condition.acquire(timeout=PATIENCE)
        condition.release()


def test_a_record_of_the_log_is_left_to_be_written(run):
    begun, written = threading.Event(), []

    class SlowHandler(logging.Handler):
        def emit(self, record):
            begun.set()
            for _ in range(30):
                time.sleep(0.01)
            written.append(record.getMessage())

    logger = logging.Logger("slow")
    logger.addHandler(SlowHandler())

    def work():
        logger.error("lost")
        endlessly()

    thread, raised = run(work)
    assert begun.wait(PATIENCE)
    stop(thread, raised)
    assert written == ["lost"]


def test_nothing_is_raised_that_is_needless(run):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            time.sleep(0.001)

    thread, raised = run(work)
    interrupt(thread, Stopped, lambda: False)
    stop.set()
    thread.join(PATIENCE)
    assert raised == []


def test_a_thread_that_has_ended_is_nothing_to_stop(run):
    thread, _ = run(lambda: None)
    thread.join(PATIENCE)
    interrupt(thread, Stopped, lambda: True)
