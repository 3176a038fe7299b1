"""A model whose weights stay in the blocks of its GGUF file, for the kernels of a CPU.

Nothing is dequantized, and nothing is written. `loading.conversion` is for other devices and families.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, get_tensor_name_map
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.errors import reading
from langchain_eft.engine.kernels.arena import Arena
from langchain_eft.engine.kernels.formats import Packed, lossless
from langchain_eft.engine.kernels.products import SUMS, product_kernel
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.configuration import read_config
from langchain_eft.engine.loading.gguf import GgufHeader, StoredTensor, is_gguf, read_header
from langchain_eft.engine.loading.gguf_blocks import BLOCKS, pack_blocks
from langchain_eft.engine.loading.memory import WeightCount
from langchain_eft.engine.models.finite import all_finite
from langchain_eft.engine.models.packed_weight import PackedWeight
from langchain_eft.engine.progress import Progress, quiet_transformers

_ARCHITECTURES = {name: architecture for architecture, name in MODEL_ARCH_NAMES.items()}

_SUPPORTED = ("llama", "qwen2", "qwen3")
"""Families whose tensors are those of transformers, but for the order of rows."""

_EMBEDDINGS, _HEAD = "token_embd.weight", "output.weight"
"""Names of these tensors. Without the second, the output matrix is that of the embeddings."""

_NUMBERS = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}


def stays_in_blocks(file: Path) -> bool:
    """Whether a file is a GGUF file whose weights are loaded as they are."""
    if not is_gguf(file):
        return False
    header = read_header(file)
    kinds = {tensor.kind for tensor in header.tensors.values()}
    return header.architecture in _SUPPORTED and kinds <= {*BLOCKS, *_NUMBERS}


def count_gguf_weights(file: Path, *, read: bool = False) -> WeightCount:
    """The weights of a file; with `read`, those that a pass reads."""
    header = read_header(file)
    only_embeds = {_EMBEDDINGS} if read and _HEAD in header.tensors else set()
    tensors = [tensor for name, tensor in header.tensors.items() if name not in only_embeds]
    number = sum(math.prod(tensor.shape) for tensor in tensors)
    in_blocks = sum(map(_packed_size, tensors)) if stays_in_blocks(file) else None
    return WeightCount(number, 0, in_16_bits=True, in_blocks=in_blocks)


def _packed_size(tensor: StoredTensor) -> int:
    if tensor.kind not in BLOCKS:
        return tensor.nbytes
    return BLOCKS[tensor.kind].size_of(*tensor.shape)


@torch.inference_mode(mode=False)  # weights have to be ordinary tensors
def load_gguf_module(checkpoint: Checkpoint, progress: Progress) -> nn.Module:
    """Load a transformers model that attends over our KV pools, with packed weights.

    Raises:
        CheckpointNotFoundError: The file is damaged, or lacks weights.
    """
    file = checkpoint.gguf
    assert file is not None  # noqa: S101  (the caller's choice)
    config = read_config(checkpoint)
    with quiet_transformers(), init_empty_weights(include_buffers=False):
        module: Any = AutoModelForCausalLM.from_config(
            config, trust_remote_code=False, dtype=torch.float32, attn_implementation=ATTENTION
        )
    with reading(file, "fetch the file again, or use another one"):
        _Weights(file, config).fill(module)
    formats = {
        part.format for each in module.buffers() if isinstance(each, PackedWeight) for part in each.parts
    }
    for name in {one.name for one in formats} | ({SUMS} if any(one.minima for one in formats) else set()):
        product_kernel(name, progress=progress)
    module.eval().requires_grad_(requires_grad=False)
    return module  # type: ignore[no-any-return]


class _Weights:
    """The weights of a file, by transformers' names."""

    def __init__(self, file: Path, config: Any) -> None:
        self._header: GgufHeader = read_header(file)
        self._config = config.get_text_config()
        self._names = get_tensor_name_map(
            _ARCHITECTURES[self._header.architecture], self._config.num_hidden_layers
        )
        self._file = file
        self._arena = Arena()

    def fill(self, module: Any) -> None:
        """Give a model its weights, in the order of their use."""
        head, embeddings = module.get_output_embeddings(), module.get_input_embeddings()
        for path, layer in module.named_modules():
            for name, parameter in list(layer.named_parameters(recurse=False)):
                if type(layer) not in (nn.Linear, nn.Embedding) or name != "weight":
                    numbers = self._numbers(f"{path}.{name}", parameter)
                    setattr(
                        layer, name, nn.Parameter(numbers.to(torch.float32, copy=True), requires_grad=False)
                    )
                    continue
                del layer.weight
                if layer is head and _HEAD not in self._header.tensors:
                    layer.register_buffer("weight", embeddings.weight)
                else:
                    packed = self._packed(f"{path}.{name}", parameter)
                    layer.register_buffer("weight", PackedWeight.of(packed))

    def _packed(self, name: str, parameter: Tensor) -> Packed:
        tensor = self._find(name, parameter)
        if tensor.kind not in BLOCKS:
            numbers = self._numbers(name, parameter)
            return lossless(numbers).pack(numbers, self._arena)
        return pack_blocks(self._ordered(name, self._rows(tensor)), tensor.kind, self._arena)

    def _numbers(self, name: str, parameter: Tensor) -> Tensor:
        tensor = self._find(name, parameter)
        numbers = self._rows(tensor).view(_NUMBERS[tensor.kind]).view(tensor.shape)
        if not all_finite(numbers):
            raise ValueError(f"{name!r} holds NaN or infinite values")
        return self._ordered(name, numbers)

    def _rows(self, tensor: StoredTensor) -> Tensor:
        """The bytes of a tensor, [rows, bytes of a row]. They are mapped only while somebody holds them."""
        stored = np.memmap(self._file, np.uint8, "c", tensor.first, (tensor.nbytes,))
        return torch.from_numpy(stored).view(tensor.shape[0] if len(tensor.shape) > 1 else 1, -1)

    def _find(self, name: str, parameter: Tensor) -> StoredTensor:
        own = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        tensor = self._header.tensors.get(str(own))
        if tensor is None or tensor.shape != tuple(parameter.shape):
            found = "is missing" if tensor is None else f"has shape {tensor.shape}"
            raise ValueError(
                f"weights are missing or have other shapes: {name!r} {found}, and should have shape "
                f"{tuple(parameter.shape)}"
            )
        return tensor

    def _ordered(self, name: str, rows: Tensor) -> Tensor:
        """Rows in transformers' order. In files of Llama, the pairs of a rotation lie side by side."""
        heads = {
            "q_proj": self._config.num_attention_heads,
            "k_proj": getattr(self._config, "num_key_value_heads", None) or self._config.num_attention_heads,
        }.get(name.split(".")[-2])
        if self._header.architecture != "llama" or heads is None:
            return rows
        pairs = rows.view(heads, len(rows) // heads // 2, 2, *rows.shape[1:])
        return pairs.transpose(1, 2).reshape(rows.shape)
