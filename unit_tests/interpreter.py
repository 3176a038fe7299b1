"""Triton kernels in tests: on the GPU, or in Triton's interpreter where there is none. Import this first."""

import os
import re
import sys

import pytest
import torch


def _forget_triton() -> None:
    """Triton's own functions choose the interpreter at import, and torch may have imported them already."""
    for name in [name for name in sys.modules if re.match(r"triton(?!\._C)\b", name)]:
        del sys.modules[name]


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    os.environ["TRITON_INTERPRET"] = "1"
    _forget_triton()
# There are no wheels elsewhere. Here a Triton that is missing is a failure, and so is one before 3.7, whose
# interpreter fails on loops under numpy 2.4.
if sys.platform != "linux":
    pytest.importorskip("triton")

COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget

class Driver:
    capability = 0

    def get_current_device(self):
        return self.capability

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

def compile_only(kernel):
    run = kernel.run

    def dry(*args, **kwargs):
        compiled = run(*args, **{**kwargs, "warmup": True})
        print(compiled.name, compiled.metadata.shared)

    kernel.run = dry

def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")

triton.runtime.driver.set_active(Driver())
"""


def compiled_for_gpus(script: str, cache: str) -> list[int]:
    """Shared memory of every kernel that a script launches on `meta` tensors, after `compile_only` of it.

    The interpreter accepts more than the compiler, which needs no GPU; meta tensors show host reads.
    """
    from unit_tests.forked import Forked

    process = Forked(
        _compile, COMPILE + script, environment={"TRITON_CACHE_DIR": cache, "TRITON_INTERPRET": "0"}
    )
    output = process.stdout.read()
    assert process.wait() == 0, process.stderr.read()
    return [int(line.split()[-1]) for line in output.splitlines()]


def _compile(script: str) -> None:
    _forget_triton()
    exec(script, {"__name__": "__main__"})  # noqa: S102


def run_triton_everywhere(monkeypatch, *modules):
    """Let modules take this machine for a GPU."""
    from unit_tests.helpers import without_plans

    without_plans(monkeypatch)
    for module in modules:
        monkeypatch.setattr(module, "has_kernel", lambda device: True)
