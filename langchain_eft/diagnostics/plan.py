"""What a recipe takes and how fast it can be, told by configurations alone: nothing is fetched or loaded."""

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

ACCEPTANCES = (0.5, 0.7, 0.9)
"""Shares of right guesses: prose is at the lower end, tool calls and refusals are at the upper."""

CONTEXT = 1024
"""Tokens of prompt and answer that are planned for each request."""

_POSITIONS = 5
"""Positions of a request that are verified together, for the memory of logits."""


@dataclass(frozen=True)
class Part:
    """Something that takes memory.

    Attributes:
        what: Its part in the recipe.
        source: Where it comes from, or what it is for.
        parameters: Number of weights, or None where it holds none.
        precision: Of its numbers.
        nbytes: Bytes in memory.
    """

    what: str
    source: str
    parameters: int | None
    precision: str
    nbytes: int


@dataclass(frozen=True)
class Speed:
    """An estimate for one request at a time: bytes of weights over bandwidth, so nothing is faster.

    Attributes:
        what: Way to decode.
        bytes_per_token: Weights that are read for each token of an answer.
        tokens_per_second: Bandwidth over that, or None where no bandwidth is known.
    """

    what: str
    bytes_per_token: float
    tokens_per_second: float | None


@dataclass(frozen=True)
class Plan:
    """What a recipe takes on a machine.

    Attributes:
        device: Where it is to run.
        free: Bytes of memory that are free there.
        bytes_per_second: Memory bandwidth there, or None where it is not known.
        parts: What takes memory.
        kv_bytes: Keys and values of one token, over all models.
        window: Longest prompt and answer.
        speeds: The base alone, plain and speculative decoding.
        remedies: What would make it fit, if it does not.
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
        """Whether there is room for everything."""
        return self.needed <= self.free

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        if self.fits:
            return f"Fits: {gib(self.needed)} of {gib(self.free)} that are free on {self.device}."
        remedies = "; ".join(self.remedies) or "use a machine with more memory, or smaller models"
        lacking = f"{gib(self.needed)} needed, {gib(self.free)} free on {self.device}"
        return f"Does not fit: {lacking}. Do: {remedies}."

    def as_json(self) -> dict[str, Any]:
        """Everything as plain numbers and texts."""
        return {**asdict(self), "needed": self.needed, "fits": self.fits, "verdict": self.verdict}


def make_plan(
    recipe: Recipe,
    mixture: Mixture,
    config: EngineConfig,
    *,
    upscale_strength: float = 1.0,
    upscale_top_p: float = 1.0,
    context: int = CONTEXT,
    free: int | None = None,
    bytes_per_second: float | None = None,
) -> Plan:
    """Plan a recipe.

    Args:
        recipe: Which models.
        mixture: What requests decode with.
        config: How the machine is used; its `max_batch_size` requests are planned.
        upscale_strength: beta.
        upscale_top_p: Nucleus for conservative decoding.
        context: Tokens of prompt and answer of each request, in each of the texts that its models read.
        free: Bytes of memory of another machine than this one, which is taken for a GPU.
        bytes_per_second: Memory bandwidth.

    Raises:
        CheckpointNotFoundError: A configuration that cannot be found.
        RecipeError: Models that cannot be combined, or placed as asked for.
        UnsupportedModelError: A model that cannot be decoded here.
    """
    if free is not None and config.dtype == "auto":
        config = config.model_copy(update={"dtype": "bfloat16"})
    placement = Placement.of(config)
    layout = RecipeCheckpoints.find(recipe, _adapter_config)
    layout.check(placement)
    estimate = _Estimate(recipe, layout, placement, config, context, mixture, upscale_strength, upscale_top_p)
    room = free_memory(placement.device) if free is None else free
    return Plan(
        device=str(placement.device) if free is None else "a machine as described",
        free=room,
        bytes_per_second=bytes_per_second,
        parts=tuple(estimate.parts()),
        kv_bytes=estimate.kv_bytes,
        window=estimate.window,
        speeds=tuple(estimate.speeds(bytes_per_second)),
        remedies=tuple(estimate.remedies(room)),
    )


def _adapter_config(source: str) -> Path:
    """A folder with an adapter's configuration; its weights may be missing."""
    located = find_checkpoint(source)
    if located.path is not None:
        return located.path
    from huggingface_hub import hf_hub_download

    hub = located.hub
    assert hub is not None  # noqa: S101  (there is one or the other)
    file = hf_hub_download(hub.repo, "adapter_config.json", revision=hub.revision, subfolder=hub.path or None)
    return Path(file).parent


@dataclass(frozen=True)
class _Estimate:
    """The footprints of a recipe's models, added up."""

    recipe: Recipe
    layout: RecipeCheckpoints
    placement: Placement
    config: EngineConfig
    context: int
    mixture: Mixture
    strength: float
    top_p: float

    @cached_property
    def models(self) -> dict[Checkpoint, Footprint]:
        return {place: footprint(place, self.placement.dtype) for place in self.layout.unique}

    @property
    def kv_bytes(self) -> int:
        variants = {place: 1 + len(self.layout.adapters(place)) for place in self.models}
        return sum(variants[place] * model.kv_bytes for place, model in self.models.items())

    @property
    def window(self) -> int:
        limit = self.config.max_model_len
        return min([*(model.window for model in self.models.values()), *([limit] if limit else [])])

    @property
    def tokens(self) -> int:
        """Tokens of keys and values that are planned."""
        texts = len({term.prompt_name for term in self.formula.terms})
        request = texts * min(self.context, self.window)
        return self.config.kv_cache_tokens or self.config.max_batch_size * request

    def parts(self) -> Iterable[Part]:
        """Everything that takes memory."""
        dtype = str(self.placement.dtype).removeprefix("torch.")
        for place, model in self.models.items():
            quantization = self._quantization(place)
            yield Part(
                self._role(place),
                model.name,
                model.weights.linear + model.weights.other,
                "as stored" if model.weights.stored is not None else quantization or dtype,
                model.nbytes(self.placement.dtype, quantization),
            )
        for name, delta in self.recipe.behaviors.items():
            if delta.adapter is not None:
                weights = _adapter_weights(delta.adapter)
                yield Part(
                    f"adapter {name}", delta.adapter, weights, dtype, weights * self.placement.dtype.itemsize
                )
        packed = self._packed_heads()
        if packed:
            yield Part("packed output matrices", "fast products on a CPU", None, dtype, packed)
        each = gib(self.kv_bytes) if self.kv_bytes >= 2**30 else f"{self.kv_bytes / 2**10:.1f} KiB"
        yield Part(
            "keys and values", f"{self.tokens} tokens of {each}", None, dtype, self.tokens * self.kv_bytes
        )
        rows = self.config.max_batch_size * _POSITIONS
        terms, vocabulary = len(self.models), max(model.vocabulary for model in self.models.values())
        yield Part(
            "logits", f"{rows} positions", None, "float32", rows * vocabulary * (4 * terms + 2 * 8)
        )  # of every model, and p and q in float64

    def speeds(self, bytes_per_second: float | None) -> Iterable[Speed]:
        """The base alone, all models in lockstep, and drafts of the best length by acceptance rate."""
        formula = self.formula
        whole, draft = self._read(formula.terms), self._read(formula.draft_terms)

        def speed(what: str, read: float) -> Speed:
            return Speed(what, read, None if bytes_per_second is None else bytes_per_second / read)

        yield speed("base alone", self._read([formula.base]))
        yield speed("plain", whole)
        if formula.draft_terms:
            for rate in ACCEPTANCES:
                read, length = min(
                    ((k * draft + whole) / expected_tokens([rate] * k), k) for k in DRAFT_LENGTHS
                )
                yield speed(f"{length} drafted, {rate:.0%} accepted", read)

    def remedies(self, free: int) -> Iterable[str]:
        """Settings that would make it fit; none if it does."""
        needed = sum(part.nbytes for part in self.parts())
        if needed <= free:
            return
        fixed = needed - self.tokens * self.kv_bytes
        spare = (free - fixed) // self.kv_bytes
        if spare >= min(self.context, self.window):
            yield (
                f"lower the memory for keys and values with kv_cache_tokens={spare // 16 * 16} (of "
                f"{self.tokens})"
            )
        for what, changed in self._smaller():
            size = sum(part.nbytes for part in changed.parts())
            if size <= free:
                yield f"{what} ({gib(size)})"

    def _smaller(self) -> Iterable[tuple[str, _Estimate]]:
        placement = self.placement
        if placement.dtype == torch.float32:
            half = replace(self, placement=replace(placement, dtype=torch.bfloat16))
            yield "use dtype='bfloat16'", half
        if placement.quantization is None:
            for kind in ("int8", "nf4"):
                packed: Quantization = kind
                changed = replace(placement, quantization=packed, dtype=torch.bfloat16)
                try:
                    self.layout.check(changed)
                except ValueError:
                    return
                yield f"quantise the base with quantization={kind!r}", replace(self, placement=changed)

    def _packed_heads(self) -> int:
        """Bytes of tied output matrices in the layout that products on a CPU like, beside the embeddings."""
        if not prepackable(torch.empty(0, 0, dtype=self.placement.dtype, device=self.placement.device)):
            return 0
        tied = [model.head for model in self.models.values() if model.tied and not model.borrows_head]
        return sum(tied) * self.placement.dtype.itemsize

    def _quantization(self, place: Checkpoint) -> Quantization | None:
        return self.placement.quantization if place == self.layout.base else None

    def _role(self, place: Checkpoint) -> str:
        if place == self.layout.base:
            return "base"
        tuned = [name for name, pair in self.layout.pairs.items() if place == pair.tuned != pair.reference]
        reference = [name for name, pair in self.layout.pairs.items() if place == pair.reference]
        roles = [
            *(f"tuned {name}" for name in tuned),
            *([f"reference of {', '.join(reference)}"] if reference else []),
        ]
        return " and ".join(roles)

    @cached_property
    def formula(self) -> Formula[Term]:
        """What requests decode."""
        index, recipe = {place: i for i, place in enumerate(self.models)}, self.recipe
        return build_formula(
            Term(index[self.layout.base], prompt_name=recipe.base_prompt_name),
            {name: self.layout.terms(name, recipe, index.__getitem__) for name in self.layout.pairs},
            self.mixture.active(),
            self.strength,
            self.top_p,
            lambda term: self._read([term]),
            lambda term: replace(term, prompt_name=recipe.base_prompt_name),
        )

    def _read(self, terms: Iterable[Term]) -> float:
        """Bytes of weights that a pass over some terms reads, each model and each shared head once."""
        places = list(self.models)
        used = {term.model for term in terms}
        total = 0
        for model in used:
            shape = self.models[places[model]]
            total += shape.bytes_read(self.placement.dtype, self._quantization(places[model]))
            if shape.borrows_head and 0 in used and model:
                total -= shape.head * self.placement.dtype.itemsize
        return total


def _adapter_weights(source: str) -> int:
    """Number of weights of an adapter, by its file's header or by its size on the hub."""
    from langchain_eft.engine.loading.memory import count_weights

    located = find_checkpoint(source)
    if located.path is not None:
        count = count_weights(located.path)
        return count.linear + count.other
    return located.listing.weight_bytes // 4 if located.listing else 0  # PEFT saves float32
