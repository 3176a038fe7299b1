"""The memory of a recipe and its requests, and the settings that reduce it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from langchain_eft.diagnostics.plan.recipe_footprints import RecipeFootprints, adapter_weights
from langchain_eft.engine.config import EngineConfig, Quantization
from langchain_eft.engine.loading.kv_capacity import state_slots
from langchain_eft.engine.loading.memory import WeightCount, gib
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.recipe.behaviors import Recipe

_VERIFIED_POSITIONS = 5
"""Positions of a request that are verified together. They determine the memory for logits."""


@dataclass(frozen=True)
class Part:
    """A part of a recipe that takes memory.

    Attributes:
        what: The name of the part.
        source: The model or adapter that it comes from, or its purpose.
        parameters: Number of weights; None if it has no weights.
        precision: Format of its numbers.
        nbytes: Bytes in memory.
    """

    what: str
    source: str
    parameters: int | None
    precision: str
    nbytes: int


@dataclass(frozen=True)
class Memory:
    """The memory of a recipe and its requests.

    Attributes:
        recipe: The recipe.
        models: Its models.
        config: The settings of the engine.
        num_prompts: Number of prompts that the models of a request read.
        context: Tokens of each of them, with the answer.
    """

    recipe: Recipe
    models: RecipeFootprints
    config: EngineConfig
    num_prompts: int
    context: int

    @property
    def window(self) -> int:
        """Longest prompt and answer together, in tokens."""
        limit = self.config.max_model_len
        windows = [model.window for model in self.models.footprints.values()]
        return min([*windows, *([limit] if limit else [])])

    @property
    def tokens(self) -> int:
        """Tokens of keys and values."""
        request = self.num_prompts * min(self.context, self.window)
        return self.config.kv_cache_tokens or self.config.max_batch_size * request

    @property
    def needed(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts())

    def parts(self) -> Iterable[Part]:
        """All parts that take memory."""
        yield from self._weights()
        yield from self._adapters()
        dtype, kv_bytes = self._dtype, self.models.kv_bytes
        size = gib(kv_bytes) if kv_bytes >= 2**30 else f"{kv_bytes / 2**10:.1f} KiB"
        yield Part("keys and values", f"{self.tokens} tokens of {size}", None, dtype, self.tokens * kv_bytes)
        if state_bytes := self.models.state_bytes:
            slots = state_slots(self.config, self.num_prompts)
            size = f"{slots} texts of {state_bytes / 2**20:.1f} MiB"
            yield Part("recurrent states", size, None, "float32", slots * state_bytes)
        positions = self.config.max_batch_size * _VERIFIED_POSITIONS
        footprints = self.models.footprints.values()
        # Logits of every model in float32, and p and q in float64.
        row = max(model.vocabulary for model in footprints) * (4 * len(footprints) + 2 * 8)
        yield Part("logits", f"{positions} positions", None, "float32", positions * row)

    def remedies(self, free: int) -> Iterable[str]:
        """Settings that make the recipe fit into `free` bytes; none if it fits."""
        needed, kv_bytes = self.needed, self.models.kv_bytes
        if needed <= free:
            return
        spare_tokens = (free - (needed - self.tokens * kv_bytes)) // kv_bytes
        if spare_tokens >= min(self.context, self.window):
            yield (
                f"lower the memory for keys and values with kv_cache_tokens={spare_tokens // 16 * 16} (of "
                f"{self.tokens})"
            )
        for setting, smaller in self._smaller():
            size = smaller.needed
            if size <= free:
                yield f"{setting} ({gib(size)})"

    @property
    def _dtype(self) -> str:
        return _name(self.models.placement.dtype)

    def _weights(self) -> Iterable[Part]:
        for checkpoint, model in self.models.footprints.items():
            placement = self.models.placement_of(checkpoint)
            yield Part(
                self.models.role(checkpoint),
                model.name,
                model.weights.linear + model.weights.other,
                _precision(model.weights, placement),
                model.nbytes(placement),
            )

    def _adapters(self) -> Iterable[Part]:
        itemsize = self.models.placement.dtype.itemsize
        for name, delta in self.recipe.behaviors.items():
            if delta.adapter is not None:
                weights = adapter_weights(delta.adapter)
                yield Part(f"adapter {name}", delta.adapter, weights, self._dtype, weights * itemsize)

    def _smaller(self) -> Iterable[tuple[str, Memory]]:
        """Settings that need less memory, each with the memory of the recipe under it."""
        placement = self.models.placement
        if placement.dtype == torch.float32:
            yield "use dtype='bfloat16'", self._placed(replace(placement, dtype=torch.bfloat16))
        if placement.quantization is None:
            kinds: tuple[Quantization, ...] = ("int8", "nf4")
            for kind in kinds:
                dtype = placement.dtype if placement.packs else torch.bfloat16
                quantized = replace(placement, quantization=kind, dtype=dtype)
                try:
                    self.models.checkpoints.check(quantized)
                except ValueError:
                    return
                yield f"quantize the base with quantization={kind!r}", self._placed(quantized)

    def _placed(self, placement: Placement) -> Memory:
        return replace(self, models=replace(self.models, placement=placement))


def _precision(weights: WeightCount, placement: Placement) -> str:
    """Format of a model's weights, in words."""
    if weights.stored is not None or (weights.in_blocks is not None and placement.packs):
        return "as stored"
    halved = placement.packs and (weights.in_16_bits or placement.rounding)
    return placement.quantization or ("float16" if halved else _name(placement.dtype))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
