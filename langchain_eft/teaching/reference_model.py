"""The small reference as transformers trains it, with the base's embeddings where it has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM

from langchain_eft.engine.errors import reading
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.configuration import read_config
from langchain_eft.engine.loading.weight_files import check_weight_files
from langchain_eft.engine.progress import quiet_transformers
from langchain_eft.teaching.errors import TeachingError


def load_reference(folder: Path, base: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Load a reference for training.

    A reference that was saved without embeddings borrows those of the base. Only they are read from the base.

    Args:
        folder: Local folder of the reference.
        base: Local folder of the base.
        dtype: The dtype of its weights.

    Raises:
        CheckpointNotFoundError: The folder's files are damaged.
        UnsupportedModelError: The model needs code of its own.
        TeachingError: The reference lacks other weights than its embeddings.
    """
    config = read_config(Checkpoint(str(folder), folder))
    check_weight_files(folder, config)
    with quiet_transformers(), reading(folder, "give the folder of a causal language model"):
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
        )
    missing = set(info["missing_keys"])
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {name: module for name, module in model.named_modules() if module in (embeddings, head)}
    lacking = {key for key in missing if key.rpartition(".")[0] not in names}
    if lacking:
        raise TeachingError(
            f"The reference {str(folder)!r} lacks weights: {sorted(lacking)[:5]}. Use a complete checkpoint."
        )
    for key in missing:
        module: nn.Module = names[key.rpartition(".")[0]]
        if module is head and head.weight is embeddings.weight and module is not embeddings:
            continue  # tied: it is read as the embeddings
        weight = _tensor(base, key)
        if weight is None or weight.shape != module.weight.shape:
            raise TeachingError(
                f"The reference {str(folder)!r} has no embeddings, and the base {str(base)!r} has none that "
                "fit: use the base that the reference was made for."
            )
        with torch.no_grad():
            module.weight.copy_(weight)  # type: ignore[operator]
    model.tie_weights()
    return model


def _tensor(folder: Path, key: str) -> torch.Tensor | None:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if key in tensors.keys():  # noqa: SIM118  (not a mapping)
                found: torch.Tensor = tensors.get_tensor(key)
                return found
    return None
