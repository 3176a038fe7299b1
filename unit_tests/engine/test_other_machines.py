"""A row's numbers do not depend on its company with several threads and on older processors either."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = ("attention/test_flash.py", "attention/test_sdpa.py", "models/test_prepacked.py")
TESTS = "(any_chunk and features0) or hidden_keys or any_batch"
"""What runs again, in the form of pytest's -k."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "machine",
    [
        {"OMP_NUM_THREADS": "2"},
        {"OMP_NUM_THREADS": "8", "MKL_DYNAMIC": "FALSE"},
        {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    ],
    ids=["2 threads", "8 threads", "avx2"],
)
def test_a_row_gets_the_same_in_any_company(machine):
    # Without conftest.py, which gives tests a single thread.
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--noconftest", "-k", TESTS]
    command = [sys.executable, "-m", "pytest", *options, *(Path(__file__).parent / file for file in FILES)]
    environment = {**os.environ, **machine}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout
