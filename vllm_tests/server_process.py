"""A real server process of vLLM's, started by the line that `langchain-eft export` prints."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

PATIENCE = 300
"""Seconds that a server may take to start; a machine can be busy."""

SETTINGS = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "16")


def export_line(*arguments: object) -> str:
    """What `langchain-eft export` prints."""
    command = [sys.executable, "-m", "langchain_eft", "export", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def vllm_server(line: str, log: Path, *options: str) -> Iterator[str]:
    """A server process, which is stopped at the end.

    The wheel for CPUs brings no working command `vllm`, so the same arguments start the module behind it.

    Args:
        line: The printed line.
        log: File for what the server writes.
        options: Further options.

    Yields:
        Its URL.
    """
    words = shlex.split(line)
    variables, arguments = words[: words.index("vllm")], words[words.index("vllm") + 2 :]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", *arguments, *SETTINGS,
        "--port", str(port), *options,
    ]  # fmt: skip
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", **os.environ,
        **dict(variable.split("=", 1) for variable in variables),
    }  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _wait_until_ready(process, url, log)
            yield url
        finally:
            process.terminate()  # it then ends the processes that it has started
            process.wait(60)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
