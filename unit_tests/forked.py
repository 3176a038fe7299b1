"""Child processes that fork from a server which has imported everything, so that none imports it again."""

import multiprocessing
import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from langchain_eft.engine.cache_folder import CACHE_VARIABLE, cache_folder

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["unit_tests.preloaded"])


class Forked:
    """A child process that calls a function; the part of `subprocess.Popen` that tests use.

    Args:
        function: What it runs; importable, as its arguments are pickled.
        arguments: The function's arguments.
        environment: Variables that differ from this process's. What the fork server has imported does not see
            them.
        argv: What the child finds in `sys.argv`.
    """

    def __init__(self, function, *arguments, environment=None, argv=("python",)):
        ends = [FORKS.Pipe(duplex=False) for _ in ("stdout", "stderr")]
        started = ({**os.environ, **(environment or {})}, [str(each) for each in argv], str(Path.cwd()))
        work = (function, arguments, *started, *(writer for _, writer in ends))
        self._process = FORKS.Process(target=_call, args=work, daemon=True)
        self._process.start()
        self.stdout, self.stderr = (_text(*end) for end in ends)
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout)
        return self._process.exitcode

    def send_signal(self, number):
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def kill(self):
        self._process.kill()


def empty_cache(folder: Path) -> dict[str, str]:
    """The environment of a process whose cache is empty, but for the compiled kernels that all share."""
    shared = cache_folder() / "kernels"
    shared.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    if not (folder / "kernels").exists():
        (folder / "kernels").symlink_to(shared)
    return {CACHE_VARIABLE: str(folder)}


def _text(reader: Connection, writer: Connection):
    writer.close()
    return os.fdopen(os.dup(reader.fileno()), encoding="utf-8")


def _call(function, arguments, environment, argv, folder, stdout, stderr):
    for number, end in ((1, stdout), (2, stderr)):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdout.reconfigure(line_buffering=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = argv
    function(*arguments)
