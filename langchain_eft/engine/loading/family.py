"""Loading the models of a recipe. Their sizes are checked before they are fetched or read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from langchain_eft.engine.errors import InsufficientMemoryError
from langchain_eft.engine.loading.behavior_cards import warn_of_other_references
from langchain_eft.engine.loading.checkpoints import Checkpoint, fetch_checkpoint
from langchain_eft.engine.loading.gguf_weights import load_gguf_module
from langchain_eft.engine.loading.layout import RecipeCheckpoints
from langchain_eft.engine.loading.memory import LESS_MEMORY
from langchain_eft.engine.loading.tokenizers import TokenMeanings, read_tokenizers
from langchain_eft.engine.loading.weights import load_module
from langchain_eft.engine.models.causal_model import CausalModel, drop_weights
from langchain_eft.engine.models.family import ModelFamily, Term, token_mask
from langchain_eft.engine.models.lora import LoraAdapter, load_adapter
from langchain_eft.engine.models.placement import Placement, unique_storages
from langchain_eft.engine.models.self_check import prepare_model, text_config
from langchain_eft.engine.models.window import context_window
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.recipe.behaviors import Recipe

if TYPE_CHECKING:
    from langchain_eft.engine.models.tensor_parallel import Leader

logger = logging.getLogger(__name__)


def load_family(recipe: Recipe, placement: Placement, progress: Progress) -> ModelFamily:
    """Load every distinct model of a recipe once.

    Raises:
        CheckpointNotFoundError: A model or adapter cannot be found.
        DeviceLostError: A device has failed.
        InsufficientMemoryError: The weights do not fit the devices.
        InsufficientDiskError: The weights do not fit the disk.
        RecipeError: The models cannot be combined or placed as requested.
        UnsupportedModelError: Decoding a model here would not give the results of its own forward pass.
    """
    checkpoints = RecipeCheckpoints.find(recipe, lambda adapter: Path(fetch_checkpoint(adapter, progress)))
    checkpoints.check(placement)
    checkpoints.require_memory(placement)
    checkpoints = checkpoints.fetch(progress, placement)
    checkpoints.require_memory(placement)  # the size of converted files is known only now
    warn_of_other_references(checkpoints)
    loader = _Loader(checkpoints, placement, progress)
    try:
        return _load(recipe, checkpoints, loader, placement.device, progress)
    except BaseException as error:
        loader.close()
        placement.require_working(str(error))  # on a lost device everything fails, with any error
        if isinstance(error, torch.OutOfMemoryError):
            raise InsufficientMemoryError(
                f"There is no memory to load and check the models ({error}): {LESS_MEMORY}."
            ) from error
        raise


def _load(
    recipe: Recipe,
    checkpoints: RecipeCheckpoints,
    loader: _Loader,
    device: torch.device,
    progress: Progress,
) -> ModelFamily:
    with ThreadPoolExecutor(1) as pool:  # loading a tokenizer releases the interpreter lock
        pending_tokenizers = pool.submit(read_tokenizers, recipe, checkpoints)
        loader.load(checkpoints.base)
        tokenizers = pending_tokenizers.result()
    for pair in checkpoints.pairs.values():
        loader.load(pair.reference)
        loader.load(pair.tuned)
    progress("Checking the models")
    models = loader.prepared_models(tokenizers.base)
    index = {model.name: i for i, model in enumerate(models)}
    tokens = TokenMeanings.compare(recipe, checkpoints, tokenizers)
    size = min(int(text_config(model.module).vocab_size) for model in models)
    return ModelFamily(
        models=tuple(models),
        base=Term(index[checkpoints.base.folder], prompt_name=recipe.base_prompt_name),
        behaviors={
            name: checkpoints.terms(name, recipe, lambda checkpoint: index[checkpoint.folder])
            for name in checkpoints.pairs
        },
        tokenizer=tokenizers.base,
        vocabulary=token_mask(tokens.common, size).to(device),
        unscaled=token_mask(tokens.unscaled, size).to(device) if tokens.unscaled else None,
        end_ids=tokens.end,
        window=min(context_window(text_config(model.module)) for model in models),
        weight_bytes=_bytes(model.module for model in models),
        sizes=tuple(_bytes([model.module]) for model in models),
        leader=loader.leader,
    )


def _bytes(modules: Iterable[nn.Module]) -> int:
    tensors = unique_storages(t for module in modules for t in (*module.parameters(), *module.buffers()))
    return sum(tensor.nbytes for tensor in tensors.values())


class _Loader:
    """Loads each folder once. Models that were saved without embeddings share those of the first model."""

    def __init__(self, checkpoints: RecipeCheckpoints, placement: Placement, progress: Progress) -> None:
        self._checkpoints, self._placement, self._progress = checkpoints, placement, progress
        self.leader: Leader | None = None
        self.modules: dict[str, Any] = {}

    def load(self, checkpoint: Checkpoint) -> None:
        """Load a model unless it is already loaded."""
        folder = checkpoint.folder
        if folder in self.modules:
            return
        self._progress(f"Loading {Path(folder).name}")
        placement = self._placement_of(folder)
        embeddings_from = next(iter(self.modules.values()), None)
        if placement.ranks > 1:
            from langchain_eft.engine.models.tensor_parallel import Leader

            self.leader = Leader(folder, placement)
            with self.leader.loading():
                self.modules[folder] = load_module(folder, placement, embeddings_from)
            self.leader.attach(self.modules[folder])
        elif checkpoint.gguf is None:
            self.modules[folder] = load_module(folder, placement, embeddings_from)
        else:
            self.modules[folder] = load_gguf_module(checkpoint, self._progress)

    def close(self) -> None:
        """Free the weights, and stop the other ranks of a tensor-parallel base."""
        if self.leader:
            self.leader.close()
        for module in self.modules.values():
            drop_weights(module)

    def prepared_models(self, tokenizer: Any) -> list[CausalModel]:
        """All models with their adapters, checked and ready for decoding."""
        adapters = {
            checkpoint.folder: self._checkpoints.adapters(checkpoint)
            for checkpoint in self._checkpoints.unique
        }
        return [
            prepare_model(
                folder,
                module,
                self._load_adapters(module, adapters[folder]),
                tokenizer,
                self._placement_of(folder),
                self._progress,
            )
            for folder, module in self.modules.items()
        ]

    def _placement_of(self, folder: str) -> Placement:
        return self._placement if folder == self._checkpoints.base.folder else self._placement.small

    def _load_adapters(self, module: nn.Module, adapters: Sequence[Path]) -> list[LoraAdapter]:
        device = next(module.parameters()).device
        return [load_adapter(adapter, self._placement.dtype, device) for adapter in adapters]
