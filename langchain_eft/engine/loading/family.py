"""Loading a recipe: every model once, its size checked before anything is fetched or read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from langchain_eft.engine.loading.checkpoints import Checkpoint, fetch_checkpoint
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.family import ModelFamily, Term
from langchain_eft.engine.models.lora import LoraAdapter, load_adapter
from langchain_eft.engine.models.placement import Placement, distinct
from langchain_eft.engine.models.self_check import prepare, text_config
from langchain_eft.engine.models.window import longest_exact
from langchain_eft.engine.progress import Progress
from langchain_eft.engine.recipe.behaviors import Recipe

if TYPE_CHECKING:
    from langchain_eft.engine.models.tensor_parallel import Leader
from langchain_eft.engine.loading.layout import Layout
from langchain_eft.engine.loading.tokenizers import TokenMeanings, read_tokenizers
from langchain_eft.engine.loading.weights import load_module


def load_family(recipe: Recipe, placement: Placement, progress: Progress) -> ModelFamily:
    """Load every distinct model of a recipe once.

    Raises:
        CheckpointNotFoundError: A model or adapter cannot be found.
        InsufficientMemoryError: Weights that do not fit the devices.
        InsufficientDiskError: Weights that do not fit the disk.
        RecipeError: Models that cannot be combined, or placed as asked for.
        UnsupportedModelError: A model whose decoding here would not equal its own forward.
    """
    layout = Layout.of(recipe, lambda adapter: Path(fetch_checkpoint(adapter, progress)))
    layout.check(placement)
    layout.require_memory(placement)
    layout = layout.fetched(progress)
    layout.require_memory(placement)  # converted files show their size only now
    loader = _Loader(layout, placement, progress)
    try:
        return _load(recipe, layout, loader, placement.device, progress)
    except BaseException:
        loader.close()
        raise


def _load(
    recipe: Recipe, layout: Layout, loader: _Loader, device: torch.device, progress: Progress
) -> ModelFamily:
    with ThreadPoolExecutor(1) as pool:  # tokenizers load without holding the interpreter
        waiting = pool.submit(read_tokenizers, recipe, layout)
        loader.module(layout.base)
        tokenizers = waiting.result()
    for pair in layout.pairs.values():
        loader.module(pair.reference)
        loader.module(pair.tuned)
    progress("Checking the models")
    models = loader.models(tokenizers.main)
    index = {model.name: i for i, model in enumerate(models)}
    tokens = TokenMeanings.of(recipe, layout, tokenizers, loader.modules)
    size = min(int(text_config(model.module).vocab_size) for model in models)
    return ModelFamily(
        models=tuple(models),
        base=Term(index[layout.base.folder], prompt_name=recipe.base_prompt_name),
        behaviors={
            name: layout.terms(name, recipe, lambda place: index[place.folder]) for name in layout.pairs
        },
        tokenizer=tokenizers.main,
        vocabulary=_mask(tokens.common, size).to(device),
        unscaled=_mask(tokens.unscaled, size).to(device) if tokens.unscaled else None,
        end_ids=tokens.end,
        window=min(longest_exact(text_config(model.module)) for model in models),
        weight_bytes=_bytes(model.module for model in models),
        sizes=tuple(_bytes([model.module]) for model in models),
        leader=loader.leader,
    )


def _bytes(modules: Iterable[nn.Module]) -> int:
    tensors = distinct(t for module in modules for t in (*module.parameters(), *module.buffers()))
    return sum(tensor.nbytes for tensor in tensors.values())


def _mask(ids: Iterable[int], size: int) -> Tensor:
    """[size] bool."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[[i for i in ids if i < size]] = True
    return mask


class _Loader:
    """Loads each folder once; the first model lends its embeddings to those that were saved without."""

    def __init__(self, layout: Layout, placement: Placement, progress: Progress) -> None:
        self._layout, self._placement, self._progress = layout, placement, progress
        self.leader: Leader | None = None
        self.modules: dict[str, Any] = {}

    def module(self, place: Checkpoint) -> None:
        """Load a model unless it is loaded."""
        folder = place.folder
        if folder in self.modules:
            return
        self._progress(f"Loading {Path(folder).name}")
        placement = self._placement if place == self._layout.base else self._placement.small
        if placement.ranks > 1:
            from langchain_eft.engine.models.tensor_parallel import Leader

            self.leader = Leader(folder, placement)
        lender = next(iter(self.modules.values()), None)
        self.modules[folder] = load_module(folder, placement, lender)
        if placement.ranks > 1 and self.leader:
            self.leader.attach(self.modules[folder])

    def close(self) -> None:
        """Send home the processes that share the base, if there are any."""
        if self.leader:
            self.leader.close()

    def models(self, tokenizer: Any) -> list[CausalModel]:
        """All models, checked, with their adapters stacked."""
        adapters = {place.folder: self._layout.adapters(place) for place in self._layout.places}
        return [
            prepare(folder, module, self._load_adapters(module, adapters[folder]), tokenizer)
            for folder, module in self.modules.items()
        ]

    def _load_adapters(self, module: nn.Module, adapters: Sequence[Path]) -> list[LoraAdapter]:
        device = next(module.parameters()).device
        return [load_adapter(adapter, self._placement.dtype, device) for adapter in adapters]
