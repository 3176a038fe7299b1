"""What both test folders share."""

import os
import re
from collections import Counter

import pytest

ONE_SERVER = "integration_tests/served/"
"""The tests in this folder share servers with real weights, which are started once."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files stay on one worker, and those that share servers on the same one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return ONE_SERVER if nodeid.startswith(ONE_SERVER) else super()._split_scope(nodeid)

        def _reschedule(self, node) -> None:
            # A worker runs its last test when it knows the next. After a crash a file may have none left to
            # give, and all would wait for ever: so give as many files as it takes.
            waiting = len(self.workqueue)
            super()._reschedule(node)
            if len(self.workqueue) < waiting:
                self._reschedule(node)

    return Scheduling(config, log)


def pytest_configure(config):
    """Hide GPUs except from tests that `-m` chooses by `cuda`: others expect the CPU's float32."""
    if not re.search(r"(?<!not )\bcuda\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config, items):
    """Run LangChain's suite once a model; for other methods of structured output, its tests of that alone.

    Where a class says what is `everyday`, its other tests are marked `full`.
    """
    kept, same = [], []
    for item in items:
        if item.cls and item.originalname not in getattr(item.cls, "everyday", {item.originalname}):
            item.add_marker("full")
        again = item.cls and item.cls.__name__.endswith(("FunctionCalling", "JsonSchema"))
        (same if again and "structured" not in item.name else kept).append(item)
    config.hook.pytest_deselected(items=same)
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """Note the processor time that each test took with its fixtures and the processes that it waited for."""
    result = yield
    global _spent
    now = sum(os.times()[:4])
    item.user_properties.append(("processor", now - _spent))
    _spent = now
    return result


_spent = sum(os.times()[:4])


def pytest_terminal_summary(terminalreporter):
    """Print which files are dearest: the processor time of a test does not depend on a busy machine."""
    seconds = Counter()
    for report in terminalreporter.getreports("") + terminalreporter.getreports("passed"):
        if report.when == "teardown":
            seconds[report.nodeid.partition("::")[0]] += dict(report.user_properties).get("processor", 0)
    if (total := sum(seconds.values())) > 60:
        terminalreporter.section(f"dearest of {total / 60:.1f} processor minutes")
        for file, spent in seconds.most_common(20):
            terminalreporter.line(f"{spent:6.1f} s  {file}")
