"""The worker process of one rank of a tensor-parallel base."""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist

from langchain_eft.engine.loading.weights import load_module
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.tensor_parallel import join, run_announced_calls


def main(settings: str) -> None:
    """Load this rank's part of the model, then run the forward passes that rank 0 announces.

    Args:
        settings: JSON with `path`, `ranks`, `port` and `dtype`.
    """
    options = json.loads(settings)
    rank, ranks = int(os.environ["RANK"]), int(options["ranks"])
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    join(rank, ranks, int(options["port"]))
    placement = Placement(device, device, getattr(torch, options["dtype"]), ranks=ranks)
    module = load_module(options["path"], placement, None)
    try:
        run_announced_calls(module, device)
    except RuntimeError as error:
        # Rank 0 has died, or it is about to report the error itself.
        raise SystemExit(f"Rank {rank} of {ranks} stops: {error}") from error
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
