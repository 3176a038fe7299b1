"""`langchain-eft demo`: a tour with the bundled models."""

from __future__ import annotations

from rich.console import Console

from langchain_eft.cli.console import load, readable_errors
from langchain_eft.cli.options import build_model


def demo() -> None:
    """Show what emulated fine-tuning does, in half a minute, with the bundled models."""
    from langchain_eft.demo import tour

    with readable_errors():
        # float32 also where a GPU would default to bfloat16: greedy answers are then the same everywhere.
        tour(load(build_model(dtype="float32")), Console(highlight=False))
