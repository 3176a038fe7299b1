"""The process of one rank under tensor parallelism."""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist

from langchain_eft.engine.loading.weights import load_module
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.tensor_parallel import follow, join


def main(settings: str) -> None:
    """A follower: load this rank's part, then follow."""
    chosen = json.loads(settings)
    rank, ranks = int(os.environ["RANK"]), int(chosen["ranks"])
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    join(rank, ranks, int(chosen["port"]))
    placement = Placement(device, device, getattr(torch, chosen["dtype"]), ranks=ranks)
    module = load_module(chosen["path"], placement, None)
    try:
        follow(module, device)
    except RuntimeError as error:
        # Who leads has died, or is about to say why it stops.
        raise SystemExit(f"Rank {rank} of {ranks} stops: {error}") from error
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
