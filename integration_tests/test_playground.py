"""`langchain-eft playground` as a process: it opens the page, serves it, and ends at Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from integration_tests.serve_process import PATIENCE

pytestmark = pytest.mark.slow


def test_it_opens_the_page_answers_and_ends_at_ctrl_c(tmp_path):
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "langchain_eft", "playground", "--kv-cache-tokens", "8192"],
        env={**os.environ, "BROWSER": f"{browser} %s"},
        stderr=subprocess.DEVNULL,
    )
    try:
        url = wait_for(lambda: opened.exists() and opened.read_text().strip(), process)
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            page = wait_for(lambda: answered(client, "/"), process)
            assert "<title>Mix behaviors" in page.text
            models = wait_for(lambda: answered(client, "v1/models"), process)
            assert models.json()["data"][0]["id"] == "smol"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait(PATIENCE)


def wait_for(condition, process):
    """The first true value of a condition, while the process runs."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert process.poll() is None, "the process has ended"
        assert time.monotonic() < deadline, f"nothing for {PATIENCE} s"
        time.sleep(0.05)
    return value


def answered(client, path):
    """The answer, or None while there is none or an error."""
    try:
        response = client.get(path)
    except httpx.TransportError:
        return None
    return response if response.is_success else None
