"""The checkpoints of a recipe: where they are, and whether they fit the devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.checkpoints import Checkpoint, find_checkpoint
from langchain_eft.engine.loading.gguf_weights import count_gguf_weights, stays_in_blocks
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


@dataclass(frozen=True)
class CheckpointPair:
    """The checkpoints of F and S of a behavior."""

    # F, without the adapter. If there is an adapter, this is the same checkpoint as `reference`
    tuned: Checkpoint
    reference: Checkpoint  # S
    adapter: Path | None = None  # folder of the adapter that is added to `tuned`, or None


@dataclass(frozen=True)
class RecipeCheckpoints:
    """The checkpoints of all models of a recipe."""

    base: Checkpoint
    pairs: dict[str, CheckpointPair]

    @classmethod
    def find(cls, recipe: Recipe, fetch_adapter: Callable[[str], Path]) -> RecipeCheckpoints:
        """Find the checkpoints of a recipe. Models are not fetched.

        Args:
            recipe: The recipe.
            fetch_adapter: Returns the folder of an adapter. Only the adapter's configuration is read here.

        Raises:
            CheckpointNotFoundError: A model or adapter cannot be found.
            RecipeError: A tuned model or adapter has no reference.
        """
        find_once = cache(find_checkpoint)

        def find_pair(name: str, delta: BehaviorDelta) -> CheckpointPair:
            if delta.adapter is not None:
                adapter = fetch_adapter(delta.adapter)
                reference = find_once(delta.reference or _base_of_adapter(adapter))
                return CheckpointPair(reference, reference, adapter)
            if delta.tuned is None:
                reference = find_once(delta.reference or recipe.base)
                return CheckpointPair(reference, reference)
            if delta.reference is None:
                raise RecipeError(
                    f"Behavior {name!r} has tuned={str(delta.tuned)!r} and no reference: set `reference=` to "
                    "the small model before fine-tuning."
                )
            return CheckpointPair(find_once(delta.tuned), find_once(delta.reference))

        base = find_once(recipe.base)
        return cls(base, {name: find_pair(name, delta) for name, delta in recipe.behaviors.items()})

    @property
    def unique(self) -> list[Checkpoint]:
        """The checkpoint of every model once, the base first."""
        small = (checkpoint for pair in self.pairs.values() for checkpoint in (pair.reference, pair.tuned))
        return list(dict.fromkeys([self.base, *small]))

    def fetch(self, progress: Progress, placement: Placement | None = None) -> RecipeCheckpoints:
        """Fetch every model; the result has only local checkpoints.

        Args:
            progress: Callback that says what takes time.
            placement: Where the models are going to be, or None if others than the engine read them.
        """
        small = placement and placement.small
        local = {
            checkpoint: _fetched(checkpoint, placement if checkpoint == self.base else small, progress)
            for checkpoint in self.unique
        }
        pairs = {
            name: CheckpointPair(local[pair.tuned], local[pair.reference], pair.adapter)
            for name, pair in self.pairs.items()
        }
        return RecipeCheckpoints(local[self.base], pairs)

    def check(self, placement: Placement) -> None:
        """Refuse a placement of the base that does not work for a behavior.

        Raises:
            RecipeError: The base is to be quantized or divided, but a behavior uses it as a small model.
        """
        for name, pair in self.pairs.items():
            if self.base not in (pair.tuned, pair.reference):
                continue
            if placement.quantization and pair.tuned != pair.reference:
                raise RecipeError(
                    f"quantization={placement.quantization!r} would quantize the base, which is also a small "
                    f"model of behavior {name!r}: the behavior's weight would amplify the rounding error. "
                    "Leave `quantization` out, or use another base."
                )
            if pair.adapter and (placement.ranks > 1 or placement.device_map or placement.quantization):
                raise RecipeError(
                    f"The base {self.base.name!r} is also the reference of the adapter of behavior {name!r}, "
                    "and a base with adapters cannot be divided or quantized: leave `tensor_parallel`, "
                    "`device_map` and `quantization` at their defaults."
                )

    def require_memory(self, placement: Placement) -> None:
        """Refuse models that do not fit the devices together. Models of unknown size are not counted.

        Raises:
            InsufficientMemoryError: The models do not fit; the message has the sizes and the free memory.
        """
        needs: dict[torch.device, dict[str, int]] = {}
        for checkpoint in self.unique:
            target = placement if checkpoint == self.base else placement.small
            count = weight_count(checkpoint)
            if count is not None:
                size = count.nbytes(target) // target.ranks
                needs.setdefault(target.device, {})[checkpoint.name] = size
        for device, sizes in needs.items():
            spread = device == placement.device and placement.device_map is not None
            free = free_memory_everywhere(device) if spread else free_memory(device)
            require_memory(sizes, free, str(device))

    def adapters(self, reference: Checkpoint) -> list[Path]:
        """The adapters of a model, each once, in the order of the behaviors."""
        adapters = (pair.adapter for pair in self.pairs.values() if pair.reference == reference)
        return list(dict.fromkeys(adapter for adapter in adapters if adapter is not None))

    def terms(self, behavior: str, recipe: Recipe, index: Callable[[Checkpoint], int]) -> tuple[Term, Term]:
        """F and S of a behavior as terms. The i-th adapter of a model is its i-th variant.

        Args:
            behavior: Name of the behavior.
            recipe: The recipe, which names the prompts.
            index: Maps a checkpoint to the index of its model.
        """
        pair = self.pairs[behavior]
        tuned_prompt, reference_prompt = recipe.prompt_names(behavior)
        variant = 0 if pair.adapter is None else self.adapters(pair.reference).index(pair.adapter) + 1
        return (
            Term(index(pair.tuned), variant, tuned_prompt),
            Term(index(pair.reference), prompt_name=reference_prompt),
        )


def _base_of_adapter(adapter: Path) -> ModelSource:
    """The model that an adapter was trained on; its config may name a folder relative to the adapter's."""
    source = str(read_adapter_config(adapter).get("base_model_name_or_path") or "")
    relative = (adapter / source).resolve()
    if not source:
        raise RecipeError(
            f"The config of the adapter {str(adapter)!r} does not name the model that it was trained on: set "
            "`reference=` to that model."
        )
    return str(relative) if relative.is_dir() else source


def _fetched(checkpoint: Checkpoint, placement: Placement | None, progress: Progress) -> Checkpoint:
    """The local checkpoint of a model. A GGUF file keeps its weights where the kernels take them."""
    file = checkpoint.fetch_file(progress)
    stays = placement is not None and placement.packs and stays_in_blocks(file)
    folder = checkpoint.fetch(progress, weights=not stays)
    return Checkpoint(checkpoint.name, folder, gguf=file if stays else None)


def weight_count(checkpoint: Checkpoint) -> WeightCount | None:
    """Number of weights by the headers of local files or by the hub; None if neither is available."""
    local = checkpoint.gguf or checkpoint.path
    if local is not None:
        return count_weights(local) if local.is_dir() else count_gguf_weights(local)
    listing = checkpoint.listing
    if listing is None:
        return None
    packed = listing.parameters is not None and listing.weight_bytes < 2 * listing.parameters
    if listing.parameters is None or packed:  # the checkpoint is already quantized
        return WeightCount(0, 0, stored=listing.weight_bytes)
    return WeightCount(listing.parameters, 0, in_16_bits=listing.weight_bytes < 3 * listing.parameters)
