"""Packing the weights of a model on a CPU. Decoding is bound by their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from langchain_eft.engine.models.half_embedding import halve_embeddings
from langchain_eft.engine.models.half_weight import half_weight
from langchain_eft.engine.models.int8_weight import Int8Weight
from langchain_eft.engine.models.linear import FusedLinear

_PACKED = (nn.Linear, FusedLinear, nn.Embedding)

_FEWEST_IN_INT8 = 1 << 18
"""Products with smaller weights are not faster in 8 bits."""


@torch.inference_mode(mode=False)  # the copies have to be ordinary tensors
def pack_weights(module: Any, *, int8: bool) -> None:
    """Keep the weights of linear layers and embeddings in 16 bits, in place, where these hold all digits.

    Activations and sums stay float32. Other layers, such as experts in one tensor, do not change.

    Args:
        module: A transformers model on a CPU, with weights of the checkpoint's type.
        int8: Whether linear layers other than the output head are quantized to 8 bits instead.
    """
    head = module.get_output_embeddings()
    sharing: dict[int, list[Any]] = {}
    for layer in module.modules():
        # Layers that are shared with a model packed before are done.
        if type(layer) in _PACKED and type(layer.weight) is nn.Parameter:
            sharing.setdefault(id(layer.weight), []).append(layer)

    def pack(layers: list[Any]) -> None:
        """Replace the weight that some layers share. So it is freed before all others are packed."""
        embeddings = [layer for layer in layers if type(layer) is nn.Embedding]
        linear = [layer for layer in layers if type(layer) is not nn.Embedding]
        if linear:
            _pack_linear(linear, int8=int8 and head not in linear)
        if embeddings:
            halve_embeddings(embeddings)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # FBGEMM packs a weight on a single thread
        for _ in pool.map(pack, sharing.values()):
            pass
    for weight in module.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.float()


def _pack_linear(layers: Sequence[nn.Linear], *, int8: bool) -> None:
    weight = layers[0].weight
    int8 = int8 and weight.numel() >= _FEWEST_IN_INT8
    packed = Int8Weight.pack(weight) if int8 else half_weight(weight)
    if packed is not None:
        for layer in layers:
            del layer.weight
            layer.register_buffer("weight", packed)
