"""Triton kernels in tests: on the GPU, or in Triton's interpreter where there is none. Import this first."""

import os
import re
import sys

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    # Triton's own functions choose the interpreter at import, and torch may have imported them already.
    os.environ["TRITON_INTERPRET"] = "1"
    for name in [name for name in sys.modules if re.match(r"triton(?!\._C)\b", name)]:
        del sys.modules[name]
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
    import subprocess

    environment = {**os.environ, "TRITON_CACHE_DIR": cache}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", COMPILE + script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return [int(line.split()[-1]) for line in done.stdout.splitlines()]
