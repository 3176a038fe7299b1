"""One transformers model from one folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM

from langchain_eft.engine.attention.batch import has_kernel
from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.errors import CheckpointNotFoundError, RecipeError, UnsupportedModelError
from langchain_eft.engine.models.compatibility import reason_against
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.quantization import quantize, while_reading
from langchain_eft.engine.models.self_check import unsupported
from langchain_eft.engine.progress import quiet_transformers

if TYPE_CHECKING:
    pass


class _NoRandomInit(TorchFunctionMode):
    """Skip drawing initial weights: what a checkpoint lacks is lent or refused, never random."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in {"normal_", "trunc_normal_", "uniform_"}:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def load_module(path: str, placement: Placement, lender: nn.Module | None) -> nn.Module:
    """Load one transformers model that attends over our KV pools.

    Args:
        path: Local folder.
        placement: Where it runs, and in what numbers.
        lender: Model whose embeddings (and output head) stand in for missing ones.

    Raises:
        CheckpointNotFoundError: transformers finds no model there.
        RecipeError: The checkpoint lacks weights that nothing can stand in for.
        UnsupportedModelError: The model's attention cannot be replaced.
    """
    try:
        config = AutoConfig.from_pretrained(path)
        reason = reason_against(config.get_text_config())
        if reason:
            raise unsupported(path, config, reason)
        packed = getattr(config, "quantization_config", None) is not None
        with quiet_transformers(), _NoRandomInit():
            module, report = AutoModelForCausalLM.from_pretrained(
                path,
                attn_implementation=ATTENTION,
                output_loading_info=True,
                **_loading(placement, packed=packed),
            )
    except KeyError as error:
        if error.args != (ATTENTION,):
            raise
        raise unsupported(path, config, "it has no attention that could be replaced") from error
    except (OSError, ValueError, ImportError) as error:
        kind = UnsupportedModelError if "attn" in str(error) else CheckpointNotFoundError
        raise kind(f"{path!r} cannot be loaded as a causal language model: {error}") from error
    missing = set(report["missing_keys"])
    if missing:
        _lend_embeddings(path, module, missing, lender, placement.device)
    module.eval().requires_grad_(requires_grad=False)
    if placement.ranks > 1 or packed or while_reading(placement.quantization, placement.dtype):
        return module  # type: ignore[no-any-return]
    if placement.quantization:
        if has_kernel(placement.device):
            from langchain_eft.engine.models.fusion import fuse

            fuse(module)  # quantized weights cannot be joined
        quantize(module, placement.quantization, None if placement.device_map else placement.device)
    if placement.device_map:
        return module  # type: ignore[no-any-return]
    for parameter in module.parameters():
        # Packed integer weights keep their type, and quantized ones are where they belong.
        if type(parameter) is nn.Parameter and parameter.is_floating_point():
            parameter.data = parameter.data.to(placement.device, placement.dtype)
    return module.to(placement.device)  # type: ignore[no-any-return]


def _loading(placement: Placement, *, packed: bool) -> dict[str, Any]:
    """Keywords of `from_pretrained`.

    Args:
        placement: Where the model runs, and in what numbers.
        packed: Whether the checkpoint is quantized already.
    """
    if placement.ranks > 1:
        from transformers.distributed import DistributedConfig

        return {"dtype": placement.dtype, "distributed_config": DistributedConfig(tp_size=placement.ranks)}
    quantization = while_reading(placement.quantization, placement.dtype)
    if quantization or packed:
        device_map = placement.device_map or {"": placement.device}
        settings = {"quantization_config": quantization} if quantization else {}
        return {"dtype": placement.dtype, "device_map": device_map, **settings}
    if placement.device_map:
        return {"dtype": placement.dtype, "device_map": placement.device_map}
    # Widening whole tensors afterwards is faster than while they are read.
    widened = placement.dtype == torch.float32 and not placement.quantization
    return {"dtype": "auto" if widened else placement.dtype}


def _lend_embeddings(
    path: str, module: Any, missing: set[str], lender: Any | None, device: torch.device
) -> None:
    embeddings, head = module.get_input_embeddings(), module.get_output_embeddings()
    shared = {name for name, m in module.named_modules() if m is embeddings or m is head}
    strangers = {key for key in missing if key.rpartition(".")[0] not in shared}
    if strangers or lender is None:
        raise RecipeError(f"The checkpoint {path!r} lacks weights: {sorted(strangers or missing)[:5]}.")
    lent = lender.get_input_embeddings()
    if lent.weight.shape != embeddings.weight.shape:
        raise RecipeError(
            f"The checkpoint {path!r} has no embeddings of its own and the base's have shape "
            f"{tuple(lent.weight.shape)} instead of {tuple(embeddings.weight.shape)}: use the base that it "
            "was made for."
        )
    head_lent = lender.get_output_embeddings()
    for layer, own in ((lent, embeddings), (head_lent, head)):
        if type(layer.weight) is not nn.Parameter:
            raise RecipeError(
                f"The checkpoint {path!r} has no embeddings of its own, and the base's are divided among "
                "processes: leave `tensor_parallel` at 1."
            )
        if layer.weight.device != device:  # a copy
            own.weight = nn.Parameter(layer.weight.to(device), requires_grad=False)
    if lent.weight.device == device:
        module.set_input_embeddings(lent)
        module.set_output_embeddings(head_lent)
    elif lent.weight is head_lent.weight:
        head.weight = embeddings.weight
