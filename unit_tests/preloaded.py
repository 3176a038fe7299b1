"""What child processes of tests need, imported once: by the server that they fork from (see `forked`)."""

import importlib
import pkgutil

import langchain_eft

ELSEWHERE = ("triton", "dependent_launch", "cuda_graphs", "eft.vllm", "eft.diagnostics", "eft.teaching")
"""What the tests that fork do not need, and what needs more than the package's own dependencies."""

for module in pkgutil.walk_packages(langchain_eft.__path__, "langchain_eft."):
    if not any(part in module.name for part in (*ELSEWHERE, "__main__")):
        importlib.import_module(module.name)
for name in ("accelerate", "gguf", "llguidance.hf", "uvicorn", "transformers.models.llama.modeling_llama"):
    importlib.import_module(name)
