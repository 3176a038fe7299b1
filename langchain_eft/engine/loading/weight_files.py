"""The files of a model's weights: safetensors in the model's own folder, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, reading

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FETCH_AGAIN = "fetch the model again, or use another checkpoint"


def check_weight_files(folder: Path, config: Any) -> None:
    """Refuse weights that are no safetensors of the folder, or too few for the layers of a configuration.

    Nothing of the configuration's size has been built before. transformers checks the weights one by one.

    Raises:
        CheckpointNotFoundError: The folder has no such weights, its index names other files, or there are
            fewer tensors than layers.
        RecipeError: The folder also holds an adapter.
    """
    if (folder / "adapter_config.json").is_file():  # transformers would add it, where PEFT is installed
        raise RecipeError(
            f"{str(folder)!r} holds an adapter beside a model: give the adapter a folder of its own, and "
            "name it as `adapter=`."
        )
    tensors = 0
    for file in _files(folder):
        with reading(file, _FETCH_AGAIN), safe_open(file, "pt") as content:
            tensors += len(content.keys())
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if layers > tensors:
        raise CheckpointNotFoundError(
            f"{str(folder)!r} has num_hidden_layers={layers} in its config.json, and its files hold "
            f"{tensors} tensors: {_FETCH_AGAIN}."
        )


def _files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    index = folder / _INDEX
    if not index.is_file():
        raise CheckpointNotFoundError(
            f"{str(folder)!r} holds no {_WEIGHTS}: give the folder of a causal language model, as "
            "`save_pretrained` writes it. Pickled weights (.bin) are not read: load and save them once with "
            "`AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)`."
        )
    with reading(index, _FETCH_AGAIN):
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        for name in sorted(names):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ValueError(f"{name[:80]!r} is no safetensors file of this folder")
    return [folder / name for name in sorted(names)]
