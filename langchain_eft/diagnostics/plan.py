"""Estimate the memory and the best speed of a recipe from configurations alone. No weights are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from langchain_eft.engine.config import EngineConfig, Quantization
from langchain_eft.engine.decoding.formula import Formula, build_formula
from langchain_eft.engine.loading.checkpoints import Checkpoint, find_checkpoint
from langchain_eft.engine.loading.footprint import Footprint, footprint
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.engine.loading.memory import free_memory, gib
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.prepacked import prepackable
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture
from langchain_eft.engine.scheduling.draft_length import DRAFT_LENGTHS, expected_tokens

ACCEPTANCE_RATES = (0.5, 0.7, 0.9)
"""Shares of accepted draft tokens to plan for. Prose is near the lower end, tool calls and refusals near the
upper end."""

CONTEXT = 1024
"""Tokens of prompt and answer to plan for each request."""

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
class Speed:
    """An upper bound of the speed of one request at a time: memory bandwidth over bytes of weights.

    Attributes:
        what: The way of decoding.
        bytes_per_token: Bytes of weights that are read for each token of an answer.
        tokens_per_second: The bandwidth over these bytes; None if the bandwidth is unknown.
    """

    what: str
    bytes_per_token: float
    tokens_per_second: float | None


@dataclass(frozen=True)
class RecipePlan:
    """The memory and the best speed of a recipe on a machine.

    Attributes:
        device: The device that the recipe is planned for.
        free: Bytes of free memory on it.
        bytes_per_second: Its memory bandwidth; None if it is unknown.
        parts: The parts that take memory.
        kv_bytes: Bytes of keys and values of one token, over all models.
        window: Longest prompt and answer together, in tokens.
        speeds: Speeds of the base alone, of plain decoding and of speculative decoding.
        remedies: Settings that make the recipe fit; empty if it fits, or if no setting is enough.
    """

    device: str
    free: int
    bytes_per_second: float | None
    parts: tuple[Part, ...]
    kv_bytes: int
    window: int
    speeds: tuple[Speed, ...]
    remedies: tuple[str, ...]

    @property
    def needed(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether the free memory is enough."""
        return self.needed <= self.free

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        sizes = f"it needs {gib(self.needed)}, and {gib(self.free)} are free on {self.device}"
        if self.fits:
            return f"Fits: {sizes}."
        remedies = "; ".join(self.remedies) or "use a machine with more memory, or smaller models"
        return f"Does not fit: {sizes}. To make it fit: {remedies}."

    def as_json(self) -> dict[str, Any]:
        """Everything as numbers and strings."""
        return {**asdict(self), "needed": self.needed, "fits": self.fits, "verdict": self.verdict}


def plan_recipe(
    recipe: Recipe,
    mixture: Mixture,
    config: EngineConfig,
    *,
    upscale_strength: float = 1.0,
    upscale_top_p: float = 1.0,
    context: int = CONTEXT,
    free: int | None = None,
    bytes_per_second: float | None = None,
) -> RecipePlan:
    """Estimate the memory and the best speed of a recipe.

    Args:
        recipe: The models.
        mixture: The mixture of the requests.
        config: The settings of the engine. The plan is for `max_batch_size` requests at once.
        upscale_strength: beta.
        upscale_top_p: Nucleus for conservative decoding.
        context: Tokens of prompt and answer of each request, for each of the prompts that its models read.
        free: Bytes of free memory of another machine, which is planned as a GPU; None for this machine.
        bytes_per_second: Memory bandwidth.

    Raises:
        CheckpointNotFoundError: A configuration cannot be found.
        RecipeError: The models cannot be combined, or cannot be placed as the settings say.
        UnsupportedModelError: The engine cannot decode a model.
    """
    if free is not None and config.dtype == "auto":
        config = config.model_copy(update={"dtype": "bfloat16"})
    placement = Placement.of(config)
    checkpoints = RecipeCheckpoints.find(recipe, _adapter_config)
    checkpoints.check(placement)
    models = _Models(checkpoints, placement)
    formula = _formula(recipe, models, mixture, upscale_strength, upscale_top_p)
    num_prompts = len({term.prompt_name for term in formula.terms})
    memory = _Memory(recipe, models, config, num_prompts, context)
    free_bytes = free_memory(placement.device) if free is None else free
    return RecipePlan(
        device=str(placement.device) if free is None else "the given machine",
        free=free_bytes,
        bytes_per_second=bytes_per_second,
        parts=tuple(memory.parts()),
        kv_bytes=models.kv_bytes,
        window=memory.window,
        speeds=tuple(_speeds(formula, models, bytes_per_second)),
        remedies=tuple(memory.remedies(free_bytes)),
    )


def _adapter_config(source: str) -> Path:
    """A folder with the configuration of an adapter; its weights may be missing."""
    checkpoint = find_checkpoint(source)
    if checkpoint.path is not None:
        return checkpoint.path
    from huggingface_hub import hf_hub_download

    hub = checkpoint.hub
    assert hub is not None  # noqa: S101  (a checkpoint has a path or a hub model)
    file = hf_hub_download(hub.repo, "adapter_config.json", revision=hub.revision, subfolder=hub.path or None)
    return Path(file).parent


@dataclass(frozen=True)
class _Models:
    """The models of a recipe, and the size of each.

    Attributes:
        checkpoints: The checkpoints of the recipe.
        placement: Their device and precision.
    """

    checkpoints: RecipeCheckpoints
    placement: Placement

    @cached_property
    def footprints(self) -> dict[Checkpoint, Footprint]:
        """The size of each model, the base first."""
        return {each: footprint(each, self.placement.dtype) for each in self.checkpoints.unique}

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values of one token. Each adapter has keys and values of its own."""
        variants = {each: 1 + len(self.checkpoints.adapters(each)) for each in self.footprints}
        return sum(variants[each] * model.kv_bytes for each, model in self.footprints.items())

    @property
    def packed_head_bytes(self) -> int:
        """Bytes of tied output matrices in a CPU's packed layout, which are kept next to the embeddings."""
        if not prepackable(torch.empty(0, 0, dtype=self.placement.dtype, device=self.placement.device)):
            return 0
        tied = [model.head for model in self.footprints.values() if model.tied and not model.borrows_head]
        return sum(tied) * self.placement.dtype.itemsize

    def quantization(self, checkpoint: Checkpoint) -> Quantization | None:
        """The format of a model's weights. Only the base is quantized."""
        return self.placement.quantization if checkpoint == self.checkpoints.base else None

    def role(self, checkpoint: Checkpoint) -> str:
        """The role of a model in the recipe, in words."""
        if checkpoint == self.checkpoints.base:
            return "base"
        pairs = self.checkpoints.pairs.items()
        tuned = [name for name, pair in pairs if checkpoint == pair.tuned != pair.reference]
        reference = [name for name, pair in pairs if checkpoint == pair.reference]
        roles = [
            *(f"tuned {name}" for name in tuned),
            *([f"reference of {', '.join(reference)}"] if reference else []),
        ]
        return " and ".join(roles)

    def bytes_read(self, terms: Iterable[Term]) -> float:
        """Bytes of weights that one pass over `terms` reads. Each model and each shared head counts once."""
        order = list(self.footprints)
        indices = {term.model for term in terms}
        total = 0
        for index in indices:
            model = self.footprints[order[index]]
            total += model.bytes_read(self.placement.dtype, self.quantization(order[index]))
            if model.borrows_head and 0 in indices and index:
                total -= model.head * self.placement.dtype.itemsize
        return total


@dataclass(frozen=True)
class _Memory:
    """The memory of a recipe and its requests.

    Attributes:
        recipe: The recipe.
        models: Its models.
        config: The settings of the engine.
        num_prompts: Number of prompts that the models of a request read.
        context: Tokens of each of them, with the answer.
    """

    recipe: Recipe
    models: _Models
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
        packed = self.models.packed_head_bytes
        if packed:
            yield Part("packed output matrices", "fast products on a CPU", None, dtype, packed)
        size = gib(kv_bytes) if kv_bytes >= 2**30 else f"{kv_bytes / 2**10:.1f} KiB"
        yield Part("keys and values", f"{self.tokens} tokens of {size}", None, dtype, self.tokens * kv_bytes)
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
        return str(self.models.placement.dtype).removeprefix("torch.")

    def _weights(self) -> Iterable[Part]:
        for checkpoint, model in self.models.footprints.items():
            quantization = self.models.quantization(checkpoint)
            yield Part(
                self.models.role(checkpoint),
                model.name,
                model.weights.linear + model.weights.other,
                "as stored" if model.weights.stored is not None else quantization or self._dtype,
                model.nbytes(self.models.placement.dtype, quantization),
            )

    def _adapters(self) -> Iterable[Part]:
        itemsize = self.models.placement.dtype.itemsize
        for name, delta in self.recipe.behaviors.items():
            if delta.adapter is not None:
                weights = _adapter_weights(delta.adapter)
                yield Part(f"adapter {name}", delta.adapter, weights, self._dtype, weights * itemsize)

    def _smaller(self) -> Iterable[tuple[str, _Memory]]:
        """Settings that need less memory, each with the memory of the recipe under it."""
        placement = self.models.placement
        if placement.dtype == torch.float32:
            yield "use dtype='bfloat16'", self._placed(replace(placement, dtype=torch.bfloat16))
        if placement.quantization is None:
            kinds: tuple[Quantization, ...] = ("int8", "nf4")
            for kind in kinds:
                quantized = replace(placement, quantization=kind, dtype=torch.bfloat16)
                try:
                    self.models.checkpoints.check(quantized)
                except ValueError:
                    return
                yield f"quantize the base with quantization={kind!r}", self._placed(quantized)

    def _placed(self, placement: Placement) -> _Memory:
        return replace(self, models=replace(self.models, placement=placement))


def _adapter_weights(source: str) -> int:
    """Number of weights of an adapter, from the header of its file or from its size on the hub."""
    from langchain_eft.engine.loading.memory import count_weights

    checkpoint = find_checkpoint(source)
    if checkpoint.path is not None:
        count = count_weights(checkpoint.path)
        return count.linear + count.other
    return checkpoint.listing.weight_bytes // 4 if checkpoint.listing else 0  # PEFT saves float32


def _formula(
    recipe: Recipe, models: _Models, mixture: Mixture, upscale_strength: float, upscale_top_p: float
) -> Formula[Term]:
    """The formula of a request."""
    checkpoints = models.checkpoints
    index = {checkpoint: i for i, checkpoint in enumerate(models.footprints)}
    return build_formula(
        Term(index[checkpoints.base], prompt_name=recipe.base_prompt_name),
        {name: checkpoints.terms(name, recipe, index.__getitem__) for name in checkpoints.pairs},
        mixture.active(),
        upscale_strength,
        upscale_top_p,
        lambda term: models.bytes_read([term]),
        lambda term: replace(term, prompt_name=recipe.base_prompt_name),
    )


def _speeds(formula: Formula[Term], models: _Models, bytes_per_second: float | None) -> Iterable[Speed]:
    """Speeds of the base alone, of plain decoding, and of the best draft length by acceptance rate."""

    def speed(what: str, bytes_per_token: float) -> Speed:
        rate = None if bytes_per_second is None else bytes_per_second / bytes_per_token
        return Speed(what, bytes_per_token, rate)

    verify, draft = models.bytes_read(formula.terms), models.bytes_read(formula.draft_terms)
    yield speed("base alone", models.bytes_read([formula.base]))
    yield speed("plain", verify)
    if formula.draft_terms:
        for rate in ACCEPTANCE_RATES:
            bytes_per_token, length = min(
                ((k * draft + verify) / expected_tokens([rate] * k), k) for k in DRAFT_LENGTHS
            )
            yield speed(f"{length} drafted, {rate:.0%} accepted", bytes_per_token)
