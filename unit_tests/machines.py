"""Tests run again as on other machines: with several threads, and on older processors."""

import os
import subprocess
import sys

import pytest

on_other_machines = pytest.mark.parametrize(
    "machine",
    [
        {"OMP_NUM_THREADS": "2"},
        {"OMP_NUM_THREADS": "8", "MKL_DYNAMIC": "FALSE"},
        {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    ],
)


def run_again(machine, test, keyword):
    """Run those cases of a test that match a keyword in a process with these environment variables."""
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", keyword]
    command = [sys.executable, "-m", "pytest", *options, test]
    environment = {**os.environ, **machine}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stdout
