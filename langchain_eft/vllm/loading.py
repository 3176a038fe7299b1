"""The weights of all models: which file goes to which model, and that none is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import ModelConfig
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models.utils import AutoWeightsLoader

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError
from langchain_eft.engine.loading.checkpoints import fetch_checkpoint
from langchain_eft.engine.models.lora import LoraAdapter, load_adapter
from langchain_eft.vllm.export.adapters import refuse_activated
from langchain_eft.vllm.section import SmallModel
from langchain_eft.vllm.settings import checkpoint_name


def weights_source(model: SmallModel, served: ModelConfig, prefix: str) -> DefaultModelLoader.Source:
    """Where vLLM's loader finds the weights of a whole small model.

    Args:
        model: The model.
        served: The served model.
        prefix: Put before the names of its weights.
    """
    return DefaultModelLoader.Source(served.model, served.revision, subfolder=model.subfolder, prefix=prefix)


def read_adapter(model: SmallModel, served: ModelConfig, device: torch.device) -> LoraAdapter:
    """The low-rank updates of a small model that is an adapter.

    Raises:
        EngineError: It cannot be found, or it is not a plain LoRA.
    """
    folder = fetch_checkpoint(checkpoint_name(served, model.subfolder), lambda _: None)
    adapter = load_adapter(Path(folder), served.dtype, device)
    refuse_activated(adapter)
    return adapter


def load_all(
    models: nn.ModuleDict, weights: Iterable[tuple[str, Tensor]], names: Mapping[str, str], *, packed: bool
) -> set[str]:
    """Load the weights of all models, and lend the base's embeddings to those that were saved without any.

    Args:
        models: The models, by the prefix of their weights' names.
        weights: Names and tensors from all files; the base's have no prefix.
        names: The models' names in the section, the base's first, by the same prefixes.
        packed: Whether the base is quantized. vLLM itself then checks that none of its weights is missing.

    Returns:
        Names of the parameters that were loaded.

    Raises:
        CheckpointNotFoundError: A weight of some model is in no file.
        RecipeError: The base's embeddings do not fit a model that has none.
    """
    base = next(iter(names))
    loaded: set[str] = AutoWeightsLoader(models).load_weights(_prefixed(weights, base, models))
    for key, name in names.items():
        model = models[key]
        missing = {weight for weight, _ in model.named_parameters() if f"{key}.{weight}" not in loaded}
        if key != base and missing and _lend_embeddings(name, model, models[base], missing):
            continue
        if missing and not (key == base and packed):
            raise CheckpointNotFoundError(
                f"No file of the model {name!r} holds the weights {sorted(missing)[:3]} ({len(missing)} in "
                "all): fetch the model again, or use a complete checkpoint."
            )
    return loaded | {weight for weight, _ in models.named_parameters()}


def _prefixed(
    weights: Iterable[tuple[str, Tensor]], base: str, models: nn.ModuleDict
) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in weights:
        yield (name if name.partition(".")[0] in models else f"{base}.{name}"), tensor


def _lend_embeddings(name: str, model: nn.Module, base: Any, missing: set[str]) -> bool:
    """Share the base's embedding and head with a model. False if other weights are missing too."""
    places = _embeddings(model)
    weights = {
        f"{place}.{weight}" for place, module in places.items() for weight, _ in module.named_parameters()
    }
    if not missing <= weights:
        return False
    lenders = _embeddings(base)
    embedding = next(module for place, module in lenders.items() if not _is_head(place, module))
    head = next((module for place, module in lenders.items() if _is_head(place, module)), embedding)
    for place, module in places.items():
        lender = head if _is_head(place, module) else embedding
        shapes = [(m.org_vocab_size, m.embedding_dim) for m in (module, lender)]
        if shapes[0] != shapes[1]:
            raise RecipeError(
                f"The model {name!r} has no embeddings, and the base's have shape {shapes[1]} instead of "
                f"{shapes[0]}: use the base that the model was made for."
            )
        parent, _, attribute = place.rpartition(".")
        setattr(model.get_submodule(parent), attribute, lender)
    return True


def _embeddings(model: nn.Module) -> dict[str, Any]:
    """The embedding and the head of a model by their places. If they are tied, both are one module."""
    modules = model.named_modules(remove_duplicate=False)
    return {place: module for place, module in modules if isinstance(module, VocabParallelEmbedding)}


def _is_head(place: str, module: nn.Module) -> bool:
    return isinstance(module, ParallelLMHead) or place.rpartition(".")[2] == "lm_head"
