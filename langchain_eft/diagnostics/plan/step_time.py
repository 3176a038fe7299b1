"""The time of a decoding step and of a prompt on many cards, by a model of few assumptions.

In vLLM every token runs every model. So a step is the sum of the models' steps and of what combines their
logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from langchain_eft.diagnostics.plan.hardware import Cluster
from langchain_eft.diagnostics.plan.sharded_model import ShardedModel


@dataclass(frozen=True)
class Assumptions:
    """What the model takes for granted.

    `docs/scaling.md` compares the estimates with published measurements.

    Attributes:
        bandwidth_efficiency: Share of the memory bandwidth that matrix products of few rows reach.
        compute_efficiency: Share of the operations that matrix products of many rows reach.
        seconds_per_layer: What a layer takes beside reading weights, keys and values: norms, rotations,
            launches, and the ends of kernels.
        seconds_per_adapter_layer: The same for each adapter, whose attention and updates have kernels too.
        seconds_per_step: What a step takes outside of the models: scheduling and sampling.
        reduce_seconds: Shortest time of an all-reduce within a node.
        network_reduce_seconds: Shortest time of an all-reduce over several nodes.
        link_efficiency: Share of the links' bandwidth that all-reduces of the sizes of a step reach.
        network_bytes_per_second: Bytes that a card can send to another node in a second.
    """

    bandwidth_efficiency: float = 0.8
    compute_efficiency: float = 0.6
    seconds_per_layer: float = 30e-6
    seconds_per_adapter_layer: float = 15e-6
    seconds_per_step: float = 0.5e-3
    reduce_seconds: float = 10e-6
    network_reduce_seconds: float = 40e-6
    link_efficiency: float = 0.25
    network_bytes_per_second: float = 50e9


ASSUMPTIONS = Assumptions()

_BFLOAT16 = 2
_FLOAT32 = 4
_SAMPLER_PASSES = 5
"""How often a sampler reads or writes logits in float32: temperature, top-p, softmax, and the draw."""


@dataclass(frozen=True)
class StepTime:
    """The seconds of a decoding step, by cause.

    Attributes:
        products: Matrix products: reading weights, or computing where that takes longer.
        attention: Reading keys and values.
        layers: What layers take beside both.
        reduces: All-reduces of tensor parallelism.
        logits: Combining, gathering and sampling logits.
        host: What a step takes outside of the models.
    """

    products: float
    attention: float
    layers: float
    reduces: float
    logits: float
    host: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return float(sum(astuple(self)))


def step_time(
    models: Sequence[ShardedModel],
    cluster: Cluster,
    batch: int,
    context: int,
    kv_itemsize: int = _BFLOAT16,
    assumptions: Assumptions = ASSUMPTIONS,
) -> StepTime:
    """Estimate a step of `batch` requests that gain a token each.

    Args:
        models: All models of the recipe.
        cluster: The cards that share them.
        batch: Number of requests.
        context: Tokens of each request that have keys and values.
        kv_itemsize: Bytes of a number of keys and values.
        assumptions: What is taken for granted.
    """
    cards = cluster.count
    bandwidth = cluster.card.bytes_per_second * assumptions.bandwidth_efficiency
    kv_bytes = sum(model.kv_bytes(cards, kv_itemsize) for model in models)
    return StepTime(
        products=sum(product_seconds(model, cluster, batch, assumptions) for model in models),
        attention=batch * context * kv_bytes / bandwidth,
        layers=sum(_layer_seconds(model, assumptions) for model in models),
        reduces=sum(_reduces_of(model, cluster, batch, assumptions) for model in models),
        logits=_logits_seconds(models, cluster, batch, assumptions),
        host=assumptions.seconds_per_step,
    )


def prompt_seconds(
    models: Sequence[ShardedModel], cluster: Cluster, tokens: int, assumptions: Assumptions = ASSUMPTIONS
) -> float:
    """Estimate the seconds in which all models read a prompt's tokens. Attention among them is left out."""
    return sum(
        product_seconds(model, cluster, tokens, assumptions)
        + _layer_seconds(model, assumptions)
        + _reduces_of(model, cluster, tokens, assumptions)
        for model in models
    )


def product_seconds(model: ShardedModel, cluster: Cluster, tokens: int, assumptions: Assumptions) -> float:
    """The matrix products of a model over `tokens` tokens: bound by memory, or by arithmetic."""
    card = cluster.card
    flops = card.fp8_flops if model.base_format == "fp8" else card.flops
    reading = model.bytes_read(cluster.count) / (card.bytes_per_second * assumptions.bandwidth_efficiency)
    operations = 2 * model.read_weights * tokens * model.rows / cluster.count
    computing = operations / (flops * assumptions.compute_efficiency)
    return max(reading, computing)


def reduce_seconds(cluster: Cluster, nbytes: float, assumptions: Assumptions = ASSUMPTIONS) -> float:
    """An all-reduce of `nbytes` bytes: the shortest time, and each card sends 2 (n-1)/n times the bytes."""
    if cluster.count == 1:
        return 0.0
    shortest, bandwidth = _link(cluster, assumptions)
    return shortest + 2 * (cluster.count - 1) / cluster.count * nbytes / bandwidth


def _link(cluster: Cluster, assumptions: Assumptions) -> tuple[float, float]:
    """The shortest time of a collective in seconds, and its bytes a second."""
    if cluster.in_one_node:
        return assumptions.reduce_seconds, cluster.card.link_bytes_per_second * assumptions.link_efficiency
    return assumptions.network_reduce_seconds, assumptions.network_bytes_per_second


def _layer_seconds(model: ShardedModel, assumptions: Assumptions) -> float:
    adapters = len(model.adapters) * assumptions.seconds_per_adapter_layer
    return model.footprint.layers * (assumptions.seconds_per_layer + adapters)


def _reduces_of(model: ShardedModel, cluster: Cluster, tokens: int, assumptions: Assumptions) -> float:
    """Two all-reduces a layer and one for the embedding, of the hidden states."""
    nbytes = tokens * model.rows * model.footprint.hidden_size * _BFLOAT16
    return (2 * model.footprint.layers + 1) * reduce_seconds(cluster, nbytes, assumptions)


def _logits_seconds(
    models: Sequence[ShardedModel], cluster: Cluster, tokens: int, assumptions: Assumptions
) -> float:
    """Sum the shards of all rows on each card, gather the sum once, and sample from it."""
    bandwidth = cluster.card.bytes_per_second * assumptions.bandwidth_efficiency
    vocabulary = max(model.footprint.vocabulary for model in models)
    rows = sum(model.rows for model in models)
    shard = tokens * vocabulary / cluster.count
    combine = 0.0 if rows == 1 else shard * (rows * _BFLOAT16 + _FLOAT32)
    sample = _SAMPLER_PASSES * tokens * vocabulary * _FLOAT32
    gather = 0.0
    if cluster.count > 1:
        shortest, link = _link(cluster, assumptions)
        gather = shortest + shard * (cluster.count - 1) * _FLOAT32 / link
    return (combine + sample) / bandwidth + gather
