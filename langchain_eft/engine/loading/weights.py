"""Loading one transformers model from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.device_kernels import has_kernel
from langchain_eft.engine.errors import (
    CheckpointNotFoundError,
    RecipeError,
    UnsupportedModelError,
)
from langchain_eft.engine.loading.checkpoints import Checkpoint
from langchain_eft.engine.loading.configuration import model_class, read_config
from langchain_eft.engine.loading.weight_files import check_weight_files
from langchain_eft.engine.models.compatibility import unsupported_reason
from langchain_eft.engine.models.fusion import fuse
from langchain_eft.engine.models.packed_weight import PackedWeight
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.quantization import bitsandbytes_config, quantize
from langchain_eft.engine.models.self_check import unsupported_model
from langchain_eft.engine.progress import quiet_transformers

_REMEDY = "give the folder of a causal language model, as `save_pretrained` writes it"


class _NoRandomInit(TorchFunctionMode):
    """Skip random initial weights. Weights that a checkpoint lacks are shared with the base or refused."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in {"normal_", "trunc_normal_", "uniform_"}:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def load_module(path: str, placement: Placement, embeddings_from: nn.Module | None) -> nn.Module:
    """Load one transformers model that attends over our KV pools.

    Weights that are going to be packed keep the type of their file.

    Args:
        path: Local folder of the model.
        placement: Device and precision of the model.
        embeddings_from: Model whose embeddings and output head are used if the checkpoint has none.

    Raises:
        CheckpointNotFoundError: transformers finds no model in the folder, or its files are damaged.
        RecipeError: The checkpoint lacks weights that cannot be shared.
        UnsupportedModelError: The model's attention cannot be replaced.
    """
    config = read_config(Checkpoint(path, Path(path), remedy=_REMEDY))
    reason = unsupported_reason(config.get_text_config())
    if reason:
        raise unsupported_model(path, config, reason)
    check_weight_files(Path(path), config)
    packed = getattr(config, "quantization_config", None) is not None
    try:
        with quiet_transformers(), _NoRandomInit():
            module, report = model_class(config).from_pretrained(
                path,
                config=config,
                trust_remote_code=False,
                use_safetensors=True,
                attn_implementation=ATTENTION,
                ignore_mismatched_sizes=True,  # refused below, with their names
                output_loading_info=True,
                **_loading_options(placement, packed=packed),
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # damaged files raise many kinds
        if isinstance(error, KeyError) and error.args == (ATTENTION,):
            raise unsupported_model(path, config, "its attention cannot be replaced") from error
        about_attention = isinstance(error, (OSError, ValueError, ImportError)) and "attn" in str(error)
        kind = UnsupportedModelError if about_attention else CheckpointNotFoundError
        raise kind(f"{path!r} cannot be loaded as a causal language model: {error}") from error
    mismatched = sorted(key for key, *_ in report["mismatched_keys"])
    if mismatched:
        raise CheckpointNotFoundError(
            f"{path!r} holds weights whose shapes contradict its config.json: {mismatched[:5]}. Fetch the "
            "model again, or use another checkpoint."
        )
    missing = set(report["missing_keys"])
    if missing:
        _share_embeddings(path, module, missing, embeddings_from, placement.device)
    module.eval().requires_grad_(requires_grad=False)
    if placement.ranks > 1 or packed or bitsandbytes_config(placement.quantization, placement.dtype):
        return module  # type: ignore[no-any-return]
    if placement.quantization and not placement.packs_int8:
        if has_kernel(placement.device):
            fuse(module)  # quantized weights cannot be concatenated
        quantize(module, placement.quantization, None if placement.device_map else placement.device)
    if placement.device_map:
        return module  # type: ignore[no-any-return]
    if placement.rounding:
        for parameter in module.parameters():
            if type(parameter) is nn.Parameter and parameter.is_floating_point():
                parameter.data = parameter.data.to(placement.rounding)
    if placement.packs:
        return module  # type: ignore[no-any-return]
    for parameter in module.parameters():
        # Packed integer weights keep their type; quantized weights are already on the device.
        if type(parameter) is nn.Parameter and parameter.is_floating_point():
            parameter.data = parameter.data.to(placement.device, placement.dtype)
    return module.to(placement.device)  # type: ignore[no-any-return]


def _loading_options(placement: Placement, *, packed: bool) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained`."""
    if placement.ranks > 1:
        from transformers.distributed import DistributedConfig

        return {"dtype": placement.dtype, "distributed_config": DistributedConfig(tp_size=placement.ranks)}
    quantization = bitsandbytes_config(placement.quantization, placement.dtype)
    if quantization or packed:
        device_map = placement.device_map or {"": placement.device}
        settings = {"quantization_config": quantization} if quantization else {}
        return {"dtype": placement.dtype, "device_map": device_map, **settings}
    if placement.device_map:
        return {"dtype": placement.dtype, "device_map": placement.device_map}
    # It is faster to convert whole tensors to float32 after loading than while they are read.
    by_torchao = placement.quantization and not placement.packs_int8
    convert_later = placement.dtype == torch.float32 and not by_torchao
    return {"dtype": "auto" if convert_later else placement.dtype}


def _share_embeddings(
    path: str, module: Any, missing: set[str], source: Any | None, device: torch.device
) -> None:
    """Give a module the embeddings and the output head of `source`; copy them if the devices differ."""
    embeddings, head = module.get_input_embeddings(), module.get_output_embeddings()
    shareable = {name for name, m in module.named_modules() if m is embeddings or m is head}
    unshareable = {key for key in missing if key.rpartition(".")[0] not in shareable}
    if unshareable or source is None:
        raise RecipeError(
            f"The checkpoint {path!r} lacks weights: {sorted(unshareable or missing)[:5]}. Use a complete "
            "checkpoint."
        )
    source_embeddings, source_head = source.get_input_embeddings(), source.get_output_embeddings()
    if source_embeddings.weight.shape != embeddings.weight.shape:
        raise RecipeError(
            f"The checkpoint {path!r} has no embeddings, and the base's have shape "
            f"{tuple(source_embeddings.weight.shape)} instead of {tuple(embeddings.weight.shape)}: use the "
            "base that the checkpoint was made for."
        )
    for source_layer, layer in ((source_embeddings, embeddings), (source_head, head)):
        weight = source_layer.weight
        if type(weight) not in {nn.Parameter, PackedWeight}:
            raise RecipeError(
                f"The checkpoint {path!r} has no embeddings, and the base's are divided among "
                "processes: leave `tensor_parallel` at 1."
            )
        if weight.device != device:
            values = weight.values() if isinstance(weight, PackedWeight) else weight
            layer.weight = nn.Parameter(values.to(device), requires_grad=False)
    if source_embeddings.weight.device == device:
        module.set_input_embeddings(source_embeddings)
        module.set_output_embeddings(source_head)
    elif source_embeddings.weight is source_head.weight:
        head.weight = embeddings.weight
