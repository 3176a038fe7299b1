"""A model of round numbers, so that every figure of a plan can be computed by hand."""

from langchain_eft.diagnostics.plan import Card, Cluster, ShardedModel
from langchain_eft.diagnostics.plan.footprint import Footprint
from langchain_eft.engine.loading.memory import WeightCount

CARD = Card("X100", 2 * 10**9, 1e12, 1e14, 2e14, 4e11)
"""2 GB of memory, 1 TB/s, 100 and 200 Tflops, links of 400 GB/s."""


def model(role="base", base_format=None, *, layers=10, heads=8, kv_heads=4, adapters=None):
    """A model of 100 million linear weights, and embeddings and a head of 10 million each."""
    return ShardedModel(
        role,
        Footprint(
            name=role.replace(" ", "-"), kind="llama", weights=WeightCount(10**8, 2 * 10**7),
            read=WeightCount(10**8, 10**7), kv_bytes=8000, state_bytes=0, vocabulary=10_000, window=4096,
            head=10**7, tied=False, borrows_head=False, layers=layers, hidden_size=1000, heads=heads,
            kv_heads=kv_heads,
        ),
        base_format,
        adapters or {},
    )  # fmt: skip


def cluster(count):
    return Cluster(CARD, count)
