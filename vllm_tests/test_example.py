"""The example of two services, and the snippets of the page: both run against a real server."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vllm_tests.server_process import export_line

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "vllm"
PAGE = (ROOT / "docs" / "vllm.md").read_text(encoding="utf-8")
PIRATE = re.compile(r"\b(Arr|Ahoy|matey|Shiver me|Yo ho|th'|o')", re.IGNORECASE)


def run(*command: object, **variables: str) -> list[str]:
    done = subprocess.run(  # noqa: S603
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_agent_calls_a_tool_and_tells_the_result_in_another_mixture(smol_url):
    lines = run(sys.executable, EXAMPLE / "agent.py", EFT_URL=f"{smol_url}/v1")
    human, call, tool, answer, told = lines
    assert human.startswith("human: What is multiply(17, 23)?")
    assert "'name': 'multiply', 'args': {'a': 17, 'b': 23}" in call
    assert tool == "tool: 391"
    assert "391" in answer
    assert PIRATE.search(told)


def test_the_compose_file_starts_vllm_as_the_export_says(tmp_path):
    compose = yaml.safe_load((EXAMPLE / "compose.yaml").read_text(encoding="utf-8"))
    vllm, agent = compose["services"]["vllm"], compose["services"]["agent"]
    _, _, _, *arguments = shlex.split(export_line(tmp_path / "smol"))
    assert vllm["command"] == ["/models/smol", *arguments]
    assert vllm["volumes"] == agent["volumes"] == ["./smol:/models/smol:ro"]
    assert agent["environment"]["EFT_FOLDER"] == "/models/smol"
    assert agent["command"][1].removeprefix("/srv/langchain-eft/") == str(
        (EXAMPLE / "agent.py").relative_to(ROOT)
    )


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_snippets_of_the_page_get_pirates(smol_url, snippet, capsys):
    exec(compile(snippet.replace("http://127.0.0.1:8000", smol_url), "docs/vllm.md", "exec"), {})  # noqa: S102
    assert PIRATE.search(capsys.readouterr().out)


def test_curl_gets_pirates(smol_url):
    (snippet,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert PIRATE.search("".join(run("sh", "-c", snippet.replace("http://127.0.0.1:8000", smol_url))))
