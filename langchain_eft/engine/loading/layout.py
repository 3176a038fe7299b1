"""Where the checkpoints of a recipe are, and whether they fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.checkpoints import Checkpoint, find_checkpoint
from langchain_eft.engine.loading.memory import (
    WeightCount,
    count_weights,
    free_memory,
    free_memory_everywhere,
    require_memory,
)
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.models.lora import read_adapter_config
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.recipe.behaviors import BehaviorDelta, ModelSource, Recipe

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class CheckpointPair:
    """F and S of a behavior; an adapter's F is its reference.

    Attributes:
        tuned: F, or what its adapter is added to.
        reference: S.
        adapter: Folder of the adapter, or None.
    """

    tuned: Checkpoint
    reference: Checkpoint
    adapter: Path | None = None


@dataclass(frozen=True)
class Layout:
    """Where the models of a recipe are.

    Attributes:
        base: The large model.
        pairs: The behaviors.
    """

    base: Checkpoint
    pairs: dict[str, CheckpointPair]

    @classmethod
    def of(cls, recipe: Recipe, fetch: Callable[[str], Path]) -> Layout:
        """Find everything.

        Args:
            recipe: Which models.
            fetch: Gives the folder of an adapter, of which only the configuration is read here.

        Raises:
            CheckpointNotFoundError: Something cannot be found.
            RecipeError: A behavior without a reference.
        """
        find = cache(find_checkpoint)

        def pair(name: str, delta: BehaviorDelta) -> CheckpointPair:
            if delta.adapter is not None:
                adapter = fetch(delta.adapter)
                reference = find(delta.reference or _trained_on(adapter))
                return CheckpointPair(reference, reference, adapter)
            if delta.tuned is None:
                small = find(delta.reference or recipe.base)
                return CheckpointPair(small, small)
            if delta.reference is None:
                raise RecipeError(
                    f"Behavior {name!r} has tuned={str(delta.tuned)!r} and no reference: name the small "
                    "model before fine-tuning with `reference=`."
                )
            return CheckpointPair(find(delta.tuned), find(delta.reference))

        return cls(find(recipe.base), {name: pair(name, delta) for name, delta in recipe.behaviors.items()})

    @property
    def places(self) -> list[Checkpoint]:
        """Every model once, the base first."""
        small = (place for pair in self.pairs.values() for place in (pair.reference, pair.tuned))
        return list(dict.fromkeys([self.base, *small]))

    def fetched(self, progress: Progress) -> Layout:
        """The same once everything is on this machine."""
        here = {place: Checkpoint(place.name, Path(place.fetch(progress))) for place in self.places}
        pairs = {
            n: CheckpointPair(here[p.tuned], here[p.reference], p.adapter) for n, p in self.pairs.items()
        }
        return Layout(here[self.base], pairs)

    def check(self, placement: Placement) -> None:
        """Refuse a placement of the base that a behavior rules out.

        Raises:
            RecipeError: The base is a small model of some behavior too, and quantized or divided.
        """
        for name, pair in self.pairs.items():
            if self.base not in (pair.tuned, pair.reference):
                continue
            if placement.quantization and pair.tuned != pair.reference:
                raise RecipeError(
                    f"quantization={placement.quantization!r} is for the large base, which is also a "
                    "small model "
                    f"of behavior {name!r}, whose log-ratio would amplify the rounding: leave it out, "
                    "or use another base."
                )
            if pair.adapter and (placement.ranks > 1 or placement.device_map or placement.quantization):
                raise RecipeError(
                    f"The base {self.base.name!r} is also the reference of the adapter of behavior "
                    f"{name!r}, and "
                    "those cannot be divided or quantized with it: leave `tensor_parallel`, `device_map` and "
                    "`quantization` at their defaults."
                )

    def require_memory(self, placement: Placement) -> None:
        """Refuse models that do not fit together, as far as their sizes are known.

        Raises:
            InsufficientMemoryError: With what is needed and what is free.
        """
        needs: dict[torch.device, dict[str, int]] = {}
        for place in self.places:
            where = placement if place == self.base else placement.small
            count = weight_count(place)
            if count is not None:
                size = count.nbytes(where.dtype, where.quantization) // where.ranks
                needs.setdefault(where.device, {})[place.name] = size
        for device, sizes in needs.items():
            spread = device == placement.device and placement.device_map is not None
            require_memory(
                sizes, free_memory_everywhere(device) if spread else free_memory(device), str(device)
            )

    def adapters(self, reference: Checkpoint) -> list[Path]:
        """Adapters of a model, each once, in a fixed order."""
        found = (pair.adapter for pair in self.pairs.values() if pair.reference == reference)
        return list(dict.fromkeys(adapter for adapter in found if adapter is not None))

    def terms(self, behavior: str, recipe: Recipe, index: Callable[[Checkpoint], int]) -> tuple[Term, Term]:
        """F and S of a behavior as terms; the i-th adapter of a model is its i-th variant.

        Args:
            behavior: Its name.
            recipe: Says what they read.
            index: Numbers models.
        """
        pair, (tuned, reference) = self.pairs[behavior], recipe.prompt_names(behavior)
        variant = 0 if pair.adapter is None else self.adapters(pair.reference).index(pair.adapter) + 1
        return (
            Term(index(pair.tuned), variant, tuned),
            Term(index(pair.reference), prompt_name=reference),
        )


def _trained_on(adapter: Path) -> ModelSource:
    source = str(read_adapter_config(adapter).get("base_model_name_or_path") or "")
    beside = (adapter / source).resolve()
    if not source:
        raise RecipeError(
            f"The adapter {str(adapter)!r} does not say which model it was trained on: name it with "
            "`reference=`."
        )
    return str(beside) if beside.is_dir() else source


def weight_count(place: Checkpoint) -> WeightCount | None:
    """How many weights a model has, as far as headers of its files, or the hub, tell; else None."""
    if place.path is not None:
        return count_weights(place.path) if place.path.is_dir() else None
    known = place.known
    if known is None:
        return None
    packed = known.parameters is not None and known.weight_bytes < 2 * known.parameters
    if known.parameters is None or packed:  # quantized already
        return WeightCount(0, 0, stored=known.weight_bytes)
    return WeightCount(known.parameters, 0)
