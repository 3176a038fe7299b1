"""Programmatic dependent launch: a kernel starts while the one before it runs, and waits for its results.

GPUs have it since Hopper. Between kernels that take a few microseconds, it hides the time of a launch. Every
kernel of the engine that is launched so calls `wait_for_previous` before it reads anything that a kernel has
written, in every program. So the kernel before it, and all before that one, have ended by then.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]


@cache
def dependent_launch(device: torch.device) -> dict[str, Any]:
    """Keyword arguments of a launch on a device, for a kernel whose last argument is `dependent`."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0):
        return {"dependent": True, "launch_pdl": True}
    return {"dependent": False}


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def wait_for_previous(dependent: tl.constexpr) -> None:
    """Wait for the kernels before this one, and let the next one start to wait for this one."""
    if dependent:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
