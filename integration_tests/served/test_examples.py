"""The examples that call a server, and the snippets of its page, run as they stand on the bundled weights."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from typer.main import get_command

from integration_tests.serve_process import PATIENCE
from langchain_eft import EFTChatModel
from langchain_eft.cli import app
from langchain_eft.server.policy import read_policy, require_consistent

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "server"
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def url(open_server):
    return open_server.url


def lines(*command):
    done = subprocess.run(  # noqa: S603
        list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_tested():
    scripts = {file.name for file in EXAMPLES.glob("*") if file.is_file()}
    assert scripts == {
        "Dockerfile", "curl.sh", "graph.py", "langchain-eft.service", "langchain_client.py", "langgraph.json",
        "openai_client.py", "policy.toml", "remote_model.py", "two_agents.py",
    }  # fmt: skip


def test_openais_client_chooses_mixtures(url):
    concise, fading, figures = lines(sys.executable, EXAMPLES / "openai_client.py", f"{url}/v1")
    assert re.fullmatch(r"concise: Whales [^.]*\.", concise)
    assert re.search(r"fading pirate: .*\b(Arr|Ahoy|matey|be|Shiver|ye|th'|o')", fading)
    assert "mixture: {'concise': 1.0}" in figures


def test_langchains_client_gets_text_objects_and_batches(url):
    pirate, ant, capitals = lines(sys.executable, EXAMPLES / "langchain_client.py", f"{url}/v1")
    assert re.search(r"\b(Arr|Ahoy|matey|be|Shiver|ye|th'|o')", pirate)
    assert re.fullmatch(r"object: name='.*' legs=\d+", ant)
    assert all(city in capitals for city in ("Tokyo", "Paris"))


def test_the_remote_model_needs_no_torch(url):
    concise, fading, city, called, torch = lines(sys.executable, EXAMPLES / "remote_model.py", f"{url}/v1")
    assert re.fullmatch(r"concise: Whales [^.]*\.", concise)
    assert re.search(r"fading pirate: .*\b(Arr|Ahoy|matey|be|Shiver|ye|th'|o')", fading)
    assert re.fullmatch(r"object: name='.*' country='.*'", city)
    assert called == "tool: It is sunny in Paris."
    assert torch == "torch is loaded: False"


def test_two_agents_in_two_processes_share_the_server(url):
    first, second = lines(sys.executable, EXAMPLES / "two_agents.py", f"{url}/v1")
    assert first.startswith("smol:tools=1: multiply returned 391; ")
    assert second.startswith("smol:tools=1,harmless=0.5: multiply returned 144; ")


def test_curl_reaches_every_route(url):
    said = "\n".join(lines("sh", EXAMPLES / "curl.sh", url))
    assert '"status":"ok"' in said
    assert "data: [DONE]" in said
    assert " Tokyo" in said
    assert "eft:generation_tokens_total" in said


def test_the_graph_for_langgraphs_server_uses_this_server(url, monkeypatch):
    described = json.loads((EXAMPLES / "langgraph.json").read_text())
    file, _, name = described["graphs"]["agent"].partition(":")
    monkeypatch.setenv("LANGCHAIN_EFT_URL", f"{url}/v1")
    assert set(described["env"]) == {"LANGCHAIN_EFT_URL", "LANGCHAIN_EFT_API_KEY"}
    monkeypatch.syspath_prepend(EXAMPLES)
    graph = getattr(import_module(Path(file).stem), name)
    answer = graph.invoke({"messages": [("user", "What is multiply(17, 23)? Use the tool.")]})
    assert "391" in answer["messages"][-1].content


def test_the_policy_fits_the_bundled_models():
    policy = read_policy(EXAMPLES / "policy.toml")
    llm = EFTChatModel(mixture={"tools": 1.0, "harmless": 0.5})
    require_consistent(llm, policy.general, policy.keys, policy.mixtures)
    assert policy.keys.keys() == {"alice"}


# The page


@pytest.mark.parametrize(
    ("page", "said"), [("server", "smol:pirate=1 | "), ("remote", "The capital of Japan")]
)
def test_snippets_of_the_pages_run(url, page, said, capsys):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert snippets
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet.replace("http://127.0.0.1:8000", url), f"docs/{page}.md", "exec"), names)  # noqa: S102
    assert said in capsys.readouterr().out


def test_the_page_lists_every_metric(url):
    served = httpx.get(f"{url}/metrics").text
    families = re.findall(r"^# TYPE (\S+) (\S+)$", served, re.MULTILINE)
    listed = re.findall(r"^\| `(eft:\S+)` \| (\w+) \|", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted(family for family in families if not family[0].endswith("_created"))


def serve_options() -> set[str]:
    """What `langchain-eft serve` has."""
    parameters = get_command(app).commands["serve"].params
    return {name for each in parameters for name in (*each.opts, *each.secondary_opts)}


def test_the_page_names_options_that_exist():
    options = set(re.findall(r"`?(--[a-z][a-z-]+)", PAGE)) - {"--no-deps", "--help"}
    assert len(options) > 15
    assert options - serve_options() == set()


def test_the_policy_of_the_page_is_one(tmp_path):
    (written,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "policy.toml"
    file.write_text(written)
    policy = read_policy(file)
    require_consistent(
        EFTChatModel(mixture={"tools": 1.0, "harmless": 0.5}), policy.general, policy.keys, policy.mixtures
    )


def test_the_unit_for_systemd_names_options_that_exist():
    unit = (EXAMPLES / "langchain-eft.service").read_text()
    options = re.findall(
        r"(?<= )--[a-z][a-z-]+", "\n".join(line for line in unit.splitlines() if line[0:1] != "#")
    )
    docker = (EXAMPLES / "Dockerfile").read_text().partition("ENTRYPOINT")[2]
    options += re.findall(r"--[a-z][a-z-]+", docker)
    assert len(options) > 4
    assert set(options) - serve_options() == set()
