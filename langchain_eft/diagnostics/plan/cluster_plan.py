"""The plan of a recipe in vLLM, with tensor parallelism over the cards of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from langchain_eft.diagnostics.plan.hardware import Cluster
from langchain_eft.diagnostics.plan.memory import Part
from langchain_eft.diagnostics.plan.recipe_footprints import RecipeFootprints, adapter_config, adapter_weights
from langchain_eft.diagnostics.plan.sharded_model import BaseFormat, ShardedModel
from langchain_eft.diagnostics.plan.step_time import StepTime, prompt_seconds, step_time
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.configuration import read_config
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.vllm.attention_heads import refuse_undividable

MEMORY_SHARE = 0.92
"""Share of a card's memory that vLLM uses: the default of its `gpu_memory_utilization` (0.32.0)."""

RESERVED_BYTES = 3 * 2**30
"""Assumed bytes of activations, CUDA graphs and communication buffers on each card."""

PROMPT_TOKENS = 1000
"""Length of the prompt whose time a plan has."""

_FLOAT32 = 4
_BFLOAT16 = 2


@dataclass(frozen=True)
class Step:
    """A decoding step of a number of requests.

    Attributes:
        batch: Number of requests.
        fits: Whether their keys and values fit.
        time: Seconds of the step with all models.
        base_time: Seconds of the step with the base alone, on the same cards.
    """

    batch: int
    fits: bool
    time: StepTime
    base_time: StepTime

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all requests together."""
        return self.batch / self.time.seconds

    @property
    def times_base(self) -> float:
        """How many times as long as with the base alone it takes."""
        return self.time.seconds / self.base_time.seconds


@dataclass(frozen=True)
class ClusterPlan:
    """The memory of each card and the time of a step.

    Attributes:
        cluster: The cards.
        models: All models. Each token runs all of them.
        parts: What takes memory on each card beside keys and values.
        usable: Bytes on each card that vLLM uses.
        kv_bytes: Bytes of keys and values of one token on each card, over all models.
        context: Tokens of prompt and answer of each request.
        steps: Steps of several numbers of requests.
        prompt_seconds: Seconds to read a prompt of 1,000 tokens.
    """

    cluster: Cluster
    models: tuple[ShardedModel, ...]
    parts: tuple[Part, ...]
    usable: int
    kv_bytes: int
    context: int
    steps: tuple[Step, ...]
    prompt_seconds: float

    @property
    def kv_tokens(self) -> int:
        """Tokens whose keys and values fit; 0 if the weights do not."""
        return max(self.usable - sum(part.nbytes for part in self.parts), 0) // self.kv_bytes

    @property
    def fits(self) -> bool:
        """Whether one request fits at least."""
        return self.kv_tokens >= self.context

    def as_json(self) -> dict[str, Any]:
        """Everything as numbers and strings."""
        return {
            "cards": self.cluster.name,
            "models": [model.footprint.name for model in self.models],
            "parts": [asdict(part) for part in self.parts],
            "usable": self.usable,
            "kv_bytes": self.kv_bytes,
            "kv_tokens": self.kv_tokens,
            "context": self.context,
            "fits": self.fits,
            "prompt_seconds": self.prompt_seconds,
            "steps": [
                {
                    "batch": step.batch,
                    "fits": step.fits,
                    "seconds": step.time.seconds,
                    "tokens_per_second": step.tokens_per_second,
                    "times_base": step.times_base,
                    "causes": asdict(step.time),
                }
                for step in self.steps
            ],
        }


def sharded_models(recipe: Recipe, base_format: BaseFormat | None = None) -> tuple[ShardedModel, ...]:
    """The models that vLLM holds for a recipe, the base first.

    Args:
        recipe: The models.
        base_format: Format of the base's linear layers.

    Raises:
        CheckpointNotFoundError: A configuration cannot be found.
        RecipeError: A behavior works by a prompt; the base is stored in a format that was not named, or is to
            be quantized and is a small model too.
        UnsupportedModelError: The engine cannot decode a model.
    """
    checkpoints = RecipeCheckpoints.find(recipe, adapter_config)
    for name, pair in checkpoints.pairs.items():
        if pair.tuned == pair.reference and pair.adapter is None:
            raise RecipeError(
                f"Behavior {name!r} lets a model read a second text, and vLLM gives a request one text: "
                "leave the behavior out, or plan for this engine."
            )
        if base_format and checkpoints.base in (pair.tuned, pair.reference):
            raise RecipeError(
                f"The base is also a small model of behavior {name!r}, whose weight would amplify the "
                f"rounding error of {base_format}: leave `quantization` out, or use another base."
            )
    placement = Placement(torch.device("meta"), torch.device("meta"), torch.bfloat16)
    models = RecipeFootprints(checkpoints, placement)
    base = models.footprints[checkpoints.base]
    stored = getattr(read_config(checkpoints.base), "quantization_config", None)
    if stored and base_format is None and base.weights.stored is None:
        raise RecipeError(
            f"The weights of {base.name!r} are stored in a quantized format, and their size is not known "
            "before they are fetched: say quantization='fp8', 'int8' or 'int4'."
        )
    return tuple(
        ShardedModel(
            models.role(each),
            size,
            base_format if each == checkpoints.base else None,
            {
                name: adapter_weights(delta.adapter)
                for name, delta in recipe.behaviors.items()
                if delta.adapter is not None and checkpoints.pairs[name].reference == each
            },
        )
        for each, size in models.footprints.items()
    )


def plan_cluster(
    models: Sequence[ShardedModel],
    cluster: Cluster,
    *,
    requests: int,
    context: int,
    kv_itemsize: int = _BFLOAT16,
) -> ClusterPlan:
    """Plan models on a cluster.

    Args:
        models: The models, as `sharded_models` returns them.
        cluster: The cards that share every layer.
        requests: Most requests that decode together (`max_num_seqs`).
        context: Tokens of prompt and answer of each request.
        kv_itemsize: Bytes of a number of keys and values: 2, or 1 with `kv_cache_dtype="fp8"`.

    Raises:
        RecipeError: The number of cards does not divide the heads of a model.
    """
    cards = cluster.count
    refuse_undividable({model.footprint.name: model.heads for model in models}, cards)
    plan = ClusterPlan(
        cluster=cluster,
        models=tuple(models),
        parts=tuple(_parts(models, cards, requests)),
        usable=int(cluster.card.memory * MEMORY_SHARE),
        kv_bytes=sum(model.kv_bytes(cards, kv_itemsize) for model in models),
        context=context,
        steps=(),
        prompt_seconds=prompt_seconds(models, cluster, PROMPT_TOKENS),
    )
    steps = tuple(
        Step(
            batch,
            batch * context <= plan.kv_tokens,
            step_time(models, cluster, batch, context, kv_itemsize),
            step_time(models[:1], cluster, batch, context, kv_itemsize),
        )
        for batch in batch_sizes(requests)
    )
    return replace(plan, steps=steps)


def batch_sizes(requests: int) -> list[int]:
    """Numbers of requests whose steps a plan has: some from 1 on, and `requests`."""
    return [*(size for size in (1, 8, 32, 128) if size < requests), requests]


def _parts(models: Sequence[ShardedModel], cards: int, requests: int) -> Iterable[Part]:
    """What takes memory on each card beside keys and values."""
    for model in models:
        count = model.footprint.weights
        yield Part(
            model.role, model.footprint.name, count.linear + count.other, model.precision, model.nbytes(cards)
        )
        for name, weights in model.adapters.items():
            yield Part(f"adapter {name}", "on every card", weights, "bfloat16", weights * _BFLOAT16)
    vocabulary = max(model.footprint.vocabulary for model in models)
    shard = requests * vocabulary // cards
    # Shards of every row, their sum, and the gathered logits with the sampler's copies.
    rows = sum(model.rows for model in models)
    logits = shard * (rows * _BFLOAT16 + _FLOAT32) + 3 * requests * vocabulary * _FLOAT32
    yield Part("logits", f"{requests} requests", None, "float32", logits)
    yield Part("activations and graphs", "assumed", None, "", RESERVED_BYTES)
