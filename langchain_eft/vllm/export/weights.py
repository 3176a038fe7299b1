"""The weights in a folder of safetensors files, by the headers of the files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, reading
from langchain_eft.engine.models.lora import LoraAdapter, load_adapter

_FETCH_AGAIN = "fetch the model again, or use another checkpoint"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file.

    Attributes:
        file: The file.
        shape: Its shape.
        nbytes: Its size in the file, in bytes.
    """

    file: Path
    shape: tuple[int, ...]
    nbytes: int


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder, by name.

    Raises:
        CheckpointNotFoundError: There is no safetensors file, or one is damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointNotFoundError(
            f"{str(folder)!r} holds no .safetensors file: save the model again with `save_pretrained`."
        )
    tensors = {}
    for file in files:
        with reading(file, _FETCH_AGAIN), file.open("rb") as content:
            # The header is JSON behind its length: https://huggingface.co/docs/safetensors
            header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
            for name, entry in header.items():
                if name != "__metadata__":
                    start, end = entry["data_offsets"]
                    tensors[name] = StoredTensor(file, tuple(entry["shape"]), end - start)
    return tensors


def fitting_adapter(adapter: Path, model: Path) -> LoraAdapter:
    """Read an adapter, and find the weight that each of its updates is added to.

    Raises:
        CheckpointNotFoundError: A file is missing or damaged.
        RecipeError: An update finds no weight in the model, or one of another shape.
    """
    read = load_adapter(adapter, torch.float32, torch.device("cpu"))
    weights = stored_tensors(model)
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
