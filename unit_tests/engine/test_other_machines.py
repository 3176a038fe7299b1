"""A row's numbers do not depend on its company with several threads and on other processors either."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unit_tests.helpers import full

FILES = ("attention/test_sdpa.py",)
TESTS = ("-m", "not full", "-k", "any_chunk or hidden_keys")
"""What runs again."""

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
INTEL = "int mkl_serv_intel_cpu_true(void) { return 1; }\nint mkl_serv_intel_cpu(void) { return 1; }\n"
"""With these functions MKL takes any processor for Intel's and chooses the products that it has for those."""

needs_mkl = pytest.mark.skipif(
    sys.platform != "linux" or not torch.backends.mkl.is_available() or shutil.which("cc") is None,
    reason="needs MKL, and a C compiler to make it take the processor for Intel's",
)


@pytest.fixture(scope="module")
def intel(tmp_path_factory):
    """The environment of a process in which MKL takes the processor for Intel's."""
    library = tmp_path_factory.mktemp("intel") / "intel.so"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=INTEL, text=True, check=True)  # noqa: S603
    return {"LD_PRELOAD": str(library)}


def run(environment, *arguments):
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    command = [sys.executable, *arguments]
    return subprocess.run(  # noqa: S603
        command, env={**inherited, **environment}, capture_output=True, text=True, check=False
    )


def assert_a_row_gets_the_same_in_any_company(machine):
    # Without conftest.py, which gives tests a single thread.
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--noconftest", *TESTS]
    done = run(machine, "-m", "pytest", *options, *(str(Path(__file__).parent / file) for file in FILES))
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "machine",
    [
        {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
        *full({"OMP_NUM_THREADS": "8", "MKL_DYNAMIC": "FALSE"}, AVX2),
    ],
    ids=["2 threads", "8 threads", "avx2"],
)
def test_a_row_gets_the_same_in_any_company(machine):
    assert_a_row_gets_the_same_in_any_company(machine)


@needs_mkl
@pytest.mark.slow
@pytest.mark.parametrize("machine", [*full({}), AVX2], ids=["default", "avx2"])
def test_a_row_gets_the_same_in_any_company_on_intel(machine, intel):
    assert_a_row_gets_the_same_in_any_company({**machine, **intel, "OMP_NUM_THREADS": "1"})
