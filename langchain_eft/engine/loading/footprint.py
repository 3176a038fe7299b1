"""What a model takes, told by its configuration alone: memory, bytes read per token, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.config import Quantization
from langchain_eft.engine.errors import CheckpointNotFoundError, UnsupportedModelError
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.memory import WeightCount, count_weights
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.compatibility import reason_against
from langchain_eft.engine.models.window import longest_exact
from langchain_eft.engine.progress import quiet_transformers


@dataclass(frozen=True)
class Footprint:
    """What one model takes.

    Attributes:
        name: Its source.
        kind: Its architecture, as transformers calls it.
        weights: How many it has.
        read: How many of them a token reads: no embeddings (but a tied head), and of experts those chosen.
        kv_bytes: Keys and values of one token.
        vocabulary: Rows of its output matrix.
        window: Longest text.
        head: Weights of its output matrix.
        tied: Whether that is its embedding.
        borrows_head: Whether it was saved without embeddings and takes the base's.
    """

    name: str
    kind: str
    weights: WeightCount
    read: WeightCount
    kv_bytes: int
    vocabulary: int
    window: int
    head: int
    tied: bool
    borrows_head: bool

    def nbytes(self, dtype: torch.dtype, quantization: Quantization | None = None) -> int:
        """Bytes of its weights in memory."""
        return self.weights.nbytes(dtype, quantization)

    def bytes_read(self, dtype: torch.dtype, quantization: Quantization | None = None) -> int:
        """Bytes of its weights that a token reads."""
        return self.read.nbytes(dtype, quantization)


def footprint(place: Checkpoint, dtype: torch.dtype) -> Footprint:
    """What a model takes; of a hub model its `config.json` is fetched and nothing else.

    Raises:
        CheckpointNotFoundError: The configuration cannot be found.
        UnsupportedModelError: A model that cannot be decoded here.
    """
    return of_config(place.name, read_config(place), dtype, folder=place.path)


def read_config(located: Checkpoint) -> Any:
    """The configuration of a model that need not have been fetched.

    Raises:
        CheckpointNotFoundError: It cannot be found.
    """
    try:
        if located.path is None:
            hub = located.hub
            assert hub is not None  # noqa: S101  (there is one or the other)
            return AutoConfig.from_pretrained(hub.repo, revision=hub.revision, subfolder=hub.path)
        if located.path.suffix == ".gguf" and located.path.is_file():
            return AutoConfig.from_pretrained(located.path.parent, gguf_file=located.path.name)
        return AutoConfig.from_pretrained(located.path)
    except (OSError, ValueError) as error:
        raise CheckpointNotFoundError(
            f"The configuration of {located.name!r} cannot be read ({type(error).__name__}): "
            f"{located.remedy}."
        ) from error


@torch.inference_mode()
def of_config(name: str, config: Any, dtype: torch.dtype, folder: Path | None = None) -> Footprint:
    """What a model of a configuration takes: the model is built, and run, on tensors without memory.

    Args:
        name: Its source.
        config: transformers' configuration.
        dtype: Of keys and values.
        folder: Where its weights are, if they are here.

    Raises:
        UnsupportedModelError: A model that cannot be decoded here.
    """
    text = config.get_text_config()
    reason = reason_against(text)
    if reason:
        raise UnsupportedModelError(f"{name!r} ({text.model_type}) cannot be decoded here: {reason}.")
    device = torch.device("meta")
    with quiet_transformers(), device:
        # Products of experts insist on bfloat16 here; nothing that is counted depends on it.
        module = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=ATTENTION
        ).eval()
    weights, read = _count(module, text)
    pool = KVPool(1)
    CausalModel(name, module, [])(
        pack([Chunk([0], 0, 0, [0])], pool, 1, device), [0], torch.tensor([0], device=device)
    )
    stored = None if folder is None or folder.is_file() else count_weights(folder)
    head = module.get_output_embeddings().weight.numel()
    borrows = stored is not None and stored.linear + stored.other <= weights.linear + weights.other - head
    return Footprint(
        name=name,
        kind=text.model_type,
        weights=weights if stored is None else stored,
        read=read,
        kv_bytes=sum(pool.bytes_per_slot.values()) * dtype.itemsize // torch.bfloat16.itemsize,
        vocabulary=int(text.vocab_size),
        window=longest_exact(text),
        head=head,
        tied=module.get_output_embeddings().weight is module.get_input_embeddings().weight,
        borrows_head=borrows,
    )


def _count(module: Any, config: Any) -> tuple[WeightCount, WeightCount]:
    """All weights, and those that a token reads."""
    head, embeddings = module.get_output_embeddings(), module.get_input_embeddings()
    linear = {id(layer.weight) for layer in module.modules() if type(layer) is nn.Linear} - {id(head.weight)}
    chosen = _share_of_experts(config)
    counts = {"linear": 0, "other": 0, "linear read": 0, "other read": 0}
    for name, parameter in module.named_parameters():
        kind = "linear" if id(parameter) in linear else "other"
        counts[kind] += parameter.numel()
        looked_up = parameter is embeddings.weight and parameter is not head.weight
        share = 0.0 if looked_up else chosen if ".experts." in name else 1.0
        counts[f"{kind} read"] += int(parameter.numel() * share)
    return (
        WeightCount(counts["linear"], counts["other"]),
        WeightCount(counts["linear read"], counts["other read"]),
    )


def _share_of_experts(config: Any) -> float:
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    total = next((count for name in names if (count := getattr(config, name, None))), None)
    return float(config.num_experts_per_tok / total) if total else 1.0
