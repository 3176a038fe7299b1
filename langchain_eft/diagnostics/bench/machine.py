"""The machine that something is measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        processor: Name of the CPU.
        cores: CPUs that this process may use.
        threads: Threads of one torch operation on the CPU.
        device: What decodes.
        bytes_per_second: Memory bandwidth of that device, measured by reading.
    """

    processor: str
    cores: int
    threads: int
    device: str
    bytes_per_second: float


_READ_MEMORY = """
import sys, time, torch
device = sys.argv[1]
if device == "auto":
    device = "cuda" if torch.cuda.is_available() else "cpu"
buffer = torch.ones(2**28, device=device)  # 1 GiB, more than any cache
wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
seconds = []
for _ in range(6):
    wait()
    started = time.perf_counter()
    buffer.sum()
    wait()
    seconds.append(time.perf_counter() - started)
name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
print(buffer.nbytes / min(seconds), torch.get_num_threads(), name)
"""


def measure_machine(device: str) -> Machine:
    """Look at the machine, and measure how fast the device's memory is read.

    Args:
        device: As in `EngineConfig`.
    """
    # Apart from this process: a second thread that computes would leave more CPU workers than cores, and
    # slow down everything that is measured afterwards.
    command = [sys.executable, "-c", _READ_MEMORY, device]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    speed, threads, name = answer.stdout.split(maxsplit=2)
    return Machine(processor(), available_cores(), int(threads), name.strip(), float(speed))


def processor() -> str:
    """The CPU's name, as far as the system tells it."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)", file.read_text(), re.MULTILINE) if file.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def available_cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
