"""Where the steps run, and in which precision."""

from __future__ import annotations

import torch


def find_device() -> torch.device:
    """Return the GPU, or the CPU where there is none, and let matrix products use TF32."""
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def decoding_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 on a GPU and single precision on a CPU, which is slow at bfloat16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
