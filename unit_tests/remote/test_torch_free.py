"""A remote model loads no torch: a process needs none, even where it is installed."""

import subprocess
import sys

import pytest

from unit_tests.helpers import PATIENCE

CALLS = """
import asyncio, sys
from importlib.util import find_spec
from langchain_core.tools import tool
from pydantic import BaseModel
from langchain_eft import EFTLLM, EFTChatModel, EFTRewardScorer

@tool
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

class City(BaseModel):
    "A city."
    large: bool

url = sys.argv[1]
llm = EFTChatModel(base_url=url, temperature=0, max_tokens=100)
assert llm.invoke("hi", logprobs=True, trace=True).response_metadata["trace"]
assert llm.bind_tools([add], tool_choice="any").invoke("Add.", stop=["zz"])
assert isinstance(llm.with_structured_output(City, method="json_schema").invoke("Name one."), City)
assert list(llm.stream("hi"))
assert asyncio.run(llm.ainvoke("hi", n=2))
assert llm.get_num_tokens("hi")
assert EFTLLM(base_url=url, max_tokens=4).invoke("hi") is not None
assert EFTRewardScorer(llm, "one").invoke({"prompt": "hi", "answers": ["a", "b"]})
question = {"late": {"type": "noul", "instructions": "Is it late?"}}
if find_spec("langchain_core.decisions"):
    from langchain_eft import EFTDecisionModel
    assert EFTDecisionModel(base_url=url).invoke({"state": "hi", "questions": question}).nouls
print([name for name in ("torch", "accelerate", "gguf", "vllm") if name in sys.modules])
"""


@pytest.mark.slow
def test_a_remote_model_loads_no_torch(served):
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", CALLS, served], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (run.stdout, run.returncode) == ("[]\n", 0), run.stderr
