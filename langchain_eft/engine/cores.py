"""How many cores of the machine this process may use."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may run on, and no more than its container has time for."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, cores_of_container())


@cache
def cores_of_container() -> int:
    """The cores that this process's container has time for, rounded up; a great number without limits.

    https://docs.kernel.org/admin-guide/cgroup-v2.html defines `cpu.max`: microseconds of a period, or `max`.
    """
    cores = sys.maxsize
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            quota, period = map(int, " ".join((_GROUP / file).read_text() for file in files).split())
            if quota > 0:
                cores = min(cores, -(-quota // period))
    return cores
