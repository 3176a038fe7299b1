"""Packing the weights of a model for the kernels of a CPU. Decoding is bound by their bytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.formats import INT8, lossless
from langchain_eft.engine.kernels.products import product_kernel
from langchain_eft.engine.models.linear import FusedLinear
from langchain_eft.engine.models.packed_weight import PackedWeight
from langchain_eft.engine.progress import Progress, silent

_PACKED = (nn.Linear, FusedLinear, nn.Embedding)


@torch.inference_mode(mode=False)  # the copies have to be ordinary tensors
def pack_weights(module: Any, *, int8: bool, progress: Progress = silent) -> None:
    """Pack the weights of linear layers and embeddings in place, in 16 bits where these hold all digits.

    Activations and sums are float32. All other weights become float32 copies, so that no file stays mapped.

    Args:
        module: A transformers model on a CPU, with weights of the checkpoint's type.
        int8: Whether linear layers other than the output head are rounded to 8 bits.
        progress: Callback that says when a kernel is compiled.
    """
    head, arena = module.get_output_embeddings(), Arena()
    sharing: dict[int, list[Any]] = {}
    for layer in module.modules():
        # Layers that are shared with a model packed before are done.
        if type(layer) in _PACKED and type(layer.weight) is nn.Parameter and _is_lookup(layer):
            sharing.setdefault(id(layer.weight), []).append(layer)
    for layers in sorted(sharing.values(), key=lambda layers: head in layers):  # it comes last in a pass
        rounded = int8 and head not in layers and not any(type(layer) is nn.Embedding for layer in layers)
        weight = _pack(layers[0].weight.detach(), arena, int8=rounded)
        product_kernel(weight.parts[0].format.name, progress=progress)
        for layer in layers:
            del layer.weight  # so it is freed before the next one is packed
            layer.register_buffer("weight", weight)
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32, copy=True)


def _is_lookup(layer: Any) -> bool:
    """Whether a layer only multiplies with its weight, or only looks it up: no norm is changed on the way."""
    return getattr(layer, "max_norm", None) is None


def _pack(weight: Tensor, arena: Arena, *, int8: bool) -> PackedWeight:
    return PackedWeight.of((INT8 if int8 else lossless(weight)).pack(weight, arena))
