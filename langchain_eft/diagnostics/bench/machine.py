"""The machine that a benchmark runs on."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from langchain_eft.engine.cores import usable_cores
from langchain_eft.engine.errors import RecipeError


@dataclass(frozen=True)
class Machine:
    """A machine, with the measured bandwidth of its memory.

    Attributes:
        processor: Name of the CPU.
        cores: CPU cores that this process may use.
        threads: Threads of one torch operation on the CPU.
        device: The device that decodes.
        bytes_per_second: Bytes that the device reads from its memory per second.
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
    """Describe this machine, and measure the memory bandwidth of a device.

    Args:
        device: The device, as in `EngineConfig`.

    Raises:
        RecipeError: The device cannot be measured.
    """
    # A second thread that computes in this process would leave more CPU workers than cores and slow down all
    # later measurements. So another process measures.
    command = [sys.executable, "-P", "-c", _READ_MEMORY, device]  # -P: no module of the current folder
    process = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise RecipeError(
            f"The memory of device={device!r} cannot be measured ({reason}): use another device, free a "
            "gigabyte of its memory, or give `plan` its `--bandwidth`."
        )
    bandwidth, threads, name = process.stdout.split(maxsplit=2)
    return Machine(processor(), usable_cores(), int(threads), name.strip(), float(bandwidth))


def processor() -> str:
    """The name of the CPU, or its architecture if the system does not give a name."""
    file = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)", file.read_text(), re.MULTILINE) if file.is_file() else None
    return model[1] if model else platform.processor() or platform.machine()
