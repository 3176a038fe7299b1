"""Adapters of one model as further rows of its pass.

All rows share one copy of the weights and one product with each of them. Each row adds its own low-rank
update, and has its own keys and values: vLLM keeps them by layer, so each row has attention layers of its
own. All of them read the same block table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.layers.linear import (
    LinearBase,
    LinearMethodBase,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbeddingBase
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.parameter import ModelWeightParameter

from langchain_eft.engine.errors import RecipeError, UnsupportedModelError
from langchain_eft.engine.models.lora import LoraAdapter, LoraUpdate


def add_variants(name: str, model: nn.Module, adapters: Sequence[LoraAdapter], config: VllmConfig) -> None:
    """Let a model compute its own output and that of each adapter, one after the other.

    From T token ids and positions it then computes [(1 + adapters) * T, H].

    Args:
        name: Of the model, for messages.
        model: A loaded model of vLLM's.
        adapters: Its adapters.
        config: vLLM's configuration, which lists attention layers.

    Raises:
        RecipeError: An adapter updates a layer that the model does not have.
        UnsupportedModelError: The model is not built of vLLM's usual layers.
    """
    rows = 1 + len(adapters)
    layers = _by_layer(name, model, adapters)
    modules = list(model.modules())
    wrapped: set[type] = set()
    for parent in modules:
        for child_name, child in list(parent.named_children()):
            wrapper = _wrapper(child_name, child, rows, config)
            if wrapper is not None:
                setattr(parent, child_name, wrapper)
                wrapped.add(type(wrapper))
    others = [m for m in modules if isinstance(m, AttentionLayerBase) and not isinstance(m, Attention)]
    if others or len(wrapped) < len(_WRAPPERS):
        raise UnsupportedModelError(
            f"The model {name!r} ({type(model).__name__}) is not built of the usual layers, so its adapters "
            "cannot share its pass: merge each adapter into its model and use `tuned=`."
        )
    for layer, updates in layers.items():
        layer.quant_method = _LowRankMethod(layer, updates)


def _wrapper(name: str, child: nn.Module, rows: int, config: VllmConfig) -> nn.Module | None:
    if isinstance(child, Attention):
        return _RowsAttention(child, rows, config)
    if isinstance(child, RotaryEmbeddingBase):
        return _RowsRotary(child, rows)
    is_embedding = isinstance(child, VocabParallelEmbedding) and not isinstance(child, ParallelLMHead)
    # A head that is tied to the embedding is the same module.
    return _RowsEmbedding(child, rows) if is_embedding and name != "lm_head" else None


class _RowsEmbedding(nn.Module):
    """Embeds each token once for each row."""

    def __init__(self, embedding: nn.Module, rows: int) -> None:
        super().__init__()
        self.embedding, self._rows = embedding, rows

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.embedding(input_ids).repeat(self._rows, 1)  # type: ignore[no-any-return]


class _RowsRotary(nn.Module):
    """Rotates the queries and keys of all rows."""

    def __init__(self, rotary: nn.Module, rows: int) -> None:
        super().__init__()
        self.rotary, self._rows = rotary, rows

    def forward(self, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.rotary(positions.repeat(self._rows), *args, **kwargs)


class _RowsAttention(nn.Module):
    """Each row attends over keys and values of its own."""

    def __init__(self, first: Attention, rows: int, config: VllmConfig) -> None:
        super().__init__()
        self._rows = rows
        self.rows = nn.ModuleList([first, *(_twin(first, row, config) for row in range(1, rows))])

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        views = [each.view(self._rows, -1, *each.shape[1:]) for each in (query, key, value)]
        by_row = zip(*(view.unbind() for view in views), strict=True)
        return torch.cat([attend(*parts) for attend, parts in zip(self.rows, by_row, strict=True)])


def _twin(attention: Attention, row: int, config: VllmConfig) -> Attention:
    """Another attention layer with the same settings, and with keys and values of its own."""
    twin = copy(attention)
    for name in ("_parameters", "_buffers", "_modules"):
        setattr(
            twin, name, dict(getattr(attention, name))
        )  # scales of keys and values are removed one by one
    twin.impl = copy(attention.impl)
    twin.layer_name = f"{attention.layer_name}.row_{row}"
    config.compilation_config.static_forward_context[twin.layer_name] = twin
    return twin


_WRAPPERS = (_RowsEmbedding, _RowsRotary, _RowsAttention)


class _LowRankMethod(LinearMethodBase):  # type: ignore[misc]
    """A linear layer's own method, and to each row its low-rank update added."""

    def __init__(self, layer: LinearBase, updates: Sequence[Sequence[tuple[Any, LoraUpdate]]]) -> None:
        self._method: Any = layer.quant_method
        self._rows = len(updates)
        rank = max(sum(update.down.shape[0] for _, update in row) for row in updates)
        device = next(update.down.device for row in updates for _, update in row)
        pairs = [_sliced(layer, row, rank, device) for row in updates]
        layer.register_buffer("eft_down", torch.stack([down.t() for down, _ in pairs]), persistent=False)
        layer.register_buffer("eft_up", torch.stack([up.t() for _, up in pairs]), persistent=False)

    def create_weights(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("The layer has its weights already.")

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        self._method.process_weights_after_loading(layer)

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        output = self._method.apply(layer, x, bias)
        low = torch.bmm(x.view(self._rows, -1, x.shape[-1]), layer.eft_down)
        by_row = output.view(self._rows, -1, output.shape[-1])
        return torch.baddbmm(by_row, low, layer.eft_up).flatten(0, 1)


def _sliced(
    layer: Any, row: Sequence[tuple[Any, LoraUpdate]], rank: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """This process's slices [rank, in] and [out, rank] of a row's updates of all parts of a layer.

    The layer's own weight loader slices them, as it slices its weight.
    """
    dtype = layer.params_dtype

    def parameter(*shape: int) -> Any:
        zeros = torch.zeros(shape, dtype=dtype, device=device)
        return ModelWeightParameter(data=zeros, input_dim=1, output_dim=0, weight_loader=None)

    split_input = isinstance(layer, RowParallelLinear)
    inputs = layer.input_size_per_partition if split_input else layer.input_size
    outputs = sum(layer.output_partition_sizes) if not split_input else layer.output_size
    down, up = parameter(rank, inputs), parameter(outputs, rank)
    whole = torch.zeros(rank, layer.input_size, dtype=dtype, device=device)
    first = 0
    for part, update in row:
        size = update.down.shape[0]
        whole[first : first + size] = update.down
        placed = torch.zeros(update.up.shape[0], rank, dtype=dtype, device=device)
        placed[:, first : first + size] = update.up
        if split_input or isinstance(layer, ReplicatedLinear):
            up.data.copy_(placed)
        elif part is None:
            layer.weight_loader_v2(up, placed)
        else:
            layer.weight_loader_v2(up, placed, part)
        first += size
    if split_input:
        layer.weight_loader_v2(down, whole)
    else:
        down.data.copy_(whole)
    return down.data, up.data


def _by_layer(
    name: str, model: Any, adapters: Sequence[LoraAdapter]
) -> dict[LinearBase, list[list[tuple[Any, LoraUpdate]]]]:
    """The updates of each layer: for each row, the reference's empty one first, its parts' updates."""
    layers: dict[LinearBase, list[list[tuple[Any, LoraUpdate]]]] = defaultdict(
        lambda: [[] for _ in range(1 + len(adapters))]
    )
    modules = dict(model.named_modules())
    for row, adapter in enumerate(adapters, 1):
        for target, update in adapter.updates.items():
            layer, part = _find(model, modules, target)
            if layer is None:
                raise RecipeError(
                    f"The adapter {adapter.source!r} updates the layer {target!r}, which is no linear layer "
                    f"of {name!r} in vLLM: merge the adapter into its model and use `tuned=`."
                )
            shape = (update.up.shape[0], update.down.shape[1])
            if shape != (_output_size(layer, part), layer.input_size):
                raise RecipeError(
                    f"The adapter {adapter.source!r} updates the layer {target!r} as if it had shape "
                    f"{shape}, but in {name!r} it has {(_output_size(layer, part), layer.input_size)}: give "
                    "the adapter the reference that it was trained on."
                )
            layers[layer][row].append((part, update))
    return layers


def _output_size(layer: Any, part: Any) -> int:
    """Outputs of one part of a layer, over all processes."""
    if part is None:
        return int(layer.output_size)
    if isinstance(layer, QKVParallelLinear):
        return int((layer.total_num_heads if part == "q" else layer.total_num_kv_heads) * layer.head_size)
    return int(layer.output_sizes[part])


def _find(model: Any, modules: dict[str, nn.Module], target: str) -> tuple[LinearBase | None, Any]:
    """The layer of vLLM's that holds a layer of the checkpoint, and which part of it that is."""
    layer = modules.get(target)
    if isinstance(layer, LinearBase):
        return layer, None
    parent, _, own_name = target.rpartition(".")
    for fused_name, parts in getattr(model, "packed_modules_mapping", {}).items():
        layer = modules.get(f"{parent}.{fused_name}")
        if own_name in parts and isinstance(layer, QKVParallelLinear | MergedColumnParallelLinear):
            index = parts.index(own_name)
            return layer, "qkv"[index] if isinstance(layer, QKVParallelLinear) else index
    return None, None
