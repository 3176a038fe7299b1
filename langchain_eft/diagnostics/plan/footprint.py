"""Memory and memory traffic of a model, computed from its configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.configuration import model_class, read_config
from langchain_eft.engine.loading.gguf_weights import count_gguf_weights
from langchain_eft.engine.loading.memory import WeightCount, count_weights
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.compatibility import unsupported_reason
from langchain_eft.engine.models.heads import kv_heads
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.self_check import unsupported_model, unsupported_on_failure
from langchain_eft.engine.models.window import context_window
from langchain_eft.engine.progress import quiet_transformers


@dataclass(frozen=True)
class Footprint:
    """Sizes of one model.

    Attributes:
        name: Source of the model.
        kind: Architecture, by transformers' `model_type`.
        weights: Number of weights.
        read: Number of weights that a pass over one token reads: no embedding matrix, unless it is also the
            output matrix, and only the chosen experts.
        kv_bytes: Bytes of keys and values of one token.
        state_bytes: Bytes of the recurrent states of one text, in float32.
        vocabulary: Rows of the output matrix.
        window: Largest number of tokens in a text.
        head: Number of weights in the output matrix.
        tied: Whether the output matrix is also the embedding matrix.
        borrows_head: Whether the model was saved without embeddings and uses the base's.
        layers: Number of layers.
        hidden_size: Numbers in the hidden state of a token.
        heads: Attention heads of a layer.
        kv_heads: Heads of keys and values of a layer.
    """

    name: str
    kind: str
    weights: WeightCount
    read: WeightCount
    kv_bytes: int
    state_bytes: int
    vocabulary: int
    window: int
    head: int
    tied: bool
    borrows_head: bool
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int

    def nbytes(self, placement: Placement) -> int:
        """Size of the weights in memory, in bytes."""
        return self.weights.nbytes(placement)

    def head_bytes(self, placement: Placement) -> int:
        """Size of the output matrix in memory, in bytes."""
        return WeightCount(0, self.head, in_16_bits=self.weights.in_16_bits).nbytes(placement)

    def bytes_read(self, placement: Placement) -> int:
        """Size of the weights that a pass over one token reads, in bytes."""
        return self.read.nbytes(placement)


def footprint(checkpoint: Checkpoint, dtype: torch.dtype) -> Footprint:
    """The sizes of a model. Of a hub model, only `config.json` is fetched.

    Raises:
        CheckpointNotFoundError: The configuration cannot be found.
        UnsupportedModelError: The model cannot be decoded here.
    """
    sizes = footprint_of_config(checkpoint.name, read_config(checkpoint), dtype, folder=checkpoint.path)
    if checkpoint.path is None or checkpoint.path.is_dir():
        return sizes
    file = checkpoint.path
    return replace(sizes, weights=count_gguf_weights(file), read=count_gguf_weights(file, read=True))


@torch.inference_mode()
def footprint_of_config(name: str, config: Any, dtype: torch.dtype, folder: Path | None = None) -> Footprint:
    """The sizes of a model by its configuration. The model is built and run on meta tensors, without memory.

    Args:
        name: Source of the model.
        config: transformers' configuration.
        dtype: Type of keys and values.
        folder: Folder of its configuration and, perhaps, its weights; None if it has not been fetched.

    Raises:
        UnsupportedModelError: The model cannot be decoded here.
    """
    text = config.get_text_config()
    reason = unsupported_reason(text)
    if reason:
        raise unsupported_model(name, text, reason)
    in_16_bits = text.dtype in (torch.bfloat16, torch.float16)  # building the model changes it
    device, pool = torch.device("meta"), KVPool(1)
    with unsupported_on_failure(name, text):
        with quiet_transformers(), device:
            # The products of experts need bfloat16 on meta tensors; the counts do not depend on the type.
            module = (
                model_class(config)
                .from_config(
                    config, trust_remote_code=False, dtype=torch.bfloat16, attn_implementation=ATTENTION
                )
                .eval()
            )
        weights, read = _count(module, text, in_16_bits=in_16_bits)
        model = CausalModel(name, module, [])
        batch = pack([Chunk([0], 0, 0, [0])], pool, 1, device, model.states)
        model(batch, [0], torch.tensor([0], device=device))
    if not pool.layers:
        raise unsupported_model(name, text, "its attention cannot be replaced")
    stored = None if folder is None or not any(folder.glob("*.safetensors")) else count_weights(folder)
    head = module.get_output_embeddings().weight.numel()
    borrows = stored is not None and stored.linear + stored.other <= weights.linear + weights.other - head
    return Footprint(
        name=name,
        kind=text.model_type,
        weights=weights if stored is None else stored,
        read=read,
        kv_bytes=sum(pool.bytes_per_slot.values()) * dtype.itemsize // torch.bfloat16.itemsize,
        state_bytes=sum(model.states.bytes_per_slot.values()) if model.states else 0,
        vocabulary=int(text.vocab_size),
        window=context_window(text),
        head=head,
        tied=module.get_output_embeddings().weight is module.get_input_embeddings().weight,
        borrows_head=borrows,
        layers=int(text.num_hidden_layers),
        hidden_size=int(text.hidden_size),
        heads=int(text.num_attention_heads),
        kv_heads=kv_heads(text),
    )


def _count(module: Any, config: Any, *, in_16_bits: bool) -> tuple[WeightCount, WeightCount]:
    """The number of all weights, and of those that a pass over one token reads."""
    head, embeddings = module.get_output_embeddings(), module.get_input_embeddings()
    linear = {id(layer.weight) for layer in module.modules() if type(layer) is nn.Linear} - {id(head.weight)}
    expert_share = _share_of_experts(config)
    counts = dict.fromkeys(("linear", "other", "experts", "linear read", "other read", "experts read"), 0)
    for name, parameter in module.named_parameters():
        kind = "linear" if id(parameter) in linear else "other"
        only_embeds = parameter is embeddings.weight and parameter is not head.weight
        is_expert = ".experts." in name
        share = 0.0 if only_embeds else expert_share if is_expert else 1.0
        for part in (kind, *(["experts"] if is_expert else [])):
            counts[part] += parameter.numel()
            counts[f"{part} read"] += int(parameter.numel() * share)
    return (
        WeightCount(counts["linear"], counts["other"], counts["experts"], in_16_bits),
        WeightCount(counts["linear read"], counts["other read"], counts["experts read"], in_16_bits),
    )


def _share_of_experts(config: Any) -> float:
    """The fraction of the experts that a token uses; 1 for a model without experts."""
    total = _first(config, "num_local_experts", "num_experts", "n_routed_experts")
    used = _first(config, "num_experts_per_tok", "top_k_experts")
    return float(used / total) if total else 1.0


def _first(config: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(config, name, None))), None)
