"""Which weights of a model an adapter updates, by the headers of the files."""

from __future__ import annotations

from pathlib import Path

import torch

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.memory import tensor_headers
from langchain_eft.engine.models.lora import LoraAdapter, load_adapter


def fitting_adapter(adapter: Path, model: Path) -> LoraAdapter:
    """Read an adapter, and find the weight that each of its updates is added to.

    Raises:
        CheckpointNotFoundError: A file is missing or damaged.
        RecipeError: An update finds no weight in the model, or one of another shape; or the adapter does not
            act everywhere.
    """
    read = load_adapter(adapter, torch.float32, torch.device("cpu"))
    refuse_activated(read)
    weights = tensor_headers(model)
    for layer, update in read.updates.items():
        shape = (update.up.shape[0], update.down.shape[1])
        stored = weights.get(f"{layer}.weight")
        if stored is None or stored.shape != shape:
            found = "no such weight" if stored is None else f"one of shape {list(stored.shape)}"
            raise RecipeError(
                f"The adapter {str(adapter)!r} updates the weight of {layer!r}, of shape {list(shape)}, and "
                f"{str(model)!r} holds {found}: name the model that the adapter was trained on as its "
                "`reference`."
            )
    return read


def refuse_activated(adapter: LoraAdapter) -> None:
    """Refuse an adapter that acts on a part of the text only.

    Raises:
        RecipeError: It has invocation tokens.
    """
    if adapter.invocation:
        raise RecipeError(
            f"The adapter {adapter.source!r} is an activated LoRA (alora_invocation_tokens), and in vLLM "
            "adapters act on all tokens: decode it with this package's own engine."
        )
