"""Preparing a loaded model for decoding, and checking it against its own forward pass."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from langchain_eft.engine.attention.batch import ForwardBatch, on_device
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.device_kernels import has_kernel
from langchain_eft.engine.errors import EngineError, UnsupportedModelError
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel
from langchain_eft.engine.models.compatibility import PROBE, LayerCall, unsupported_layers_reason
from langchain_eft.engine.models.finite import require_finite
from langchain_eft.engine.models.fusion import fuse
from langchain_eft.engine.models.linear import product
from langchain_eft.engine.models.lora import LoraAdapter
from langchain_eft.engine.models.packed_weight import PackedWeight
from langchain_eft.engine.models.packing import pack_weights
from langchain_eft.engine.models.placement import Placement
from langchain_eft.engine.models.plan import Plan
from langchain_eft.engine.models.upcast import InFloat32
from langchain_eft.engine.progress import Progress, silent

TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.0125, torch.bfloat16: 0.1}
"""Largest `relative_error` of a model's logits, by the type of its activations.

Measured with SmolLM2 135M (30 layers) and four texts: the engine against transformers' eager attention, up to
3e-6 in float32, 0.003 in float16 and 0.025 in bfloat16. With positions twice as far apart, or without some
tokens of the context, 0.18 and more."""

logger = logging.getLogger(__name__)

_PROBE_TEXT = "The quick brown fox jumps over the lazy dog and runs."


@torch.inference_mode()
def prepare_model(
    name: str,
    module: nn.Module,
    adapters: Sequence[LoraAdapter],
    tokenizer: Any,
    placement: Placement,
    progress: Progress = silent,
) -> CausalModel:
    """Make a loaded model ready for decoding, and check that its logits do not change.

    The check compares two chunks decoded over our KV pool with a forward pass of the model as it was loaded,
    for variant 0. It also finds out whether the logits are a plain product with the output matrix, and how
    much KV memory a token takes.

    Raises:
        CheckpointNotFoundError: A weight is NaN or infinite.
        RecipeError: The adapters do not fit the model.
        UnsupportedModelError: The logits differ, for example because of recurrent state, ALiBi or shared KV.
    """
    require_finite(name, module)
    config = text_config(module)
    ids: list[int] = tokenizer(_PROBE_TEXT, add_special_tokens=False).input_ids[:12]
    device = next(module.parameters()).device
    if placement.packs_int8:
        _pack(module, progress, int8=True)  # before the comparison, which is not about rounding
    with unsupported_on_failure(name, config), InFloat32() if placement.packs else nullcontext():
        expected = plain_logits(module, torch.tensor([ids], device=device))
    if has_kernel(device):
        fuse(module)
    elif placement.packs and not placement.packs_int8:
        _pack(module, progress, int8=False)
    model = CausalModel(name, module, adapters)
    with unsupported_on_failure(name, config):
        _self_check(model, ids, expected)
    return model


def _pack(module: nn.Module, progress: Progress, *, int8: bool) -> None:
    fuse(module)
    pack_weights(module, int8=int8, progress=progress)


@contextmanager
def unsupported_on_failure(name: str, config: Any) -> Iterator[None]:
    """Report whatever building or running a model raises as a model that is not supported.

    Args:
        name: The model.
        config: The configuration of its text part.
    """
    try:
        yield
    except (EngineError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # families fail in many ways
        reason = f"it cannot be decoded token by token ({type(error).__name__}: {error})"
        raise unsupported_model(name, config, reason) from error


def _self_check(model: CausalModel, ids: list[int], expected: Tensor) -> None:
    half, pool, device = len(ids) // 2, KVPool(len(ids)), expected.device
    config = text_config(model.module)
    calls: list[LayerCall] = []
    head = model.head = _output_matrix(model.module)
    memory = pool, len(ids), device, model.states
    first = pack([Chunk(ids[:half], 0, 0, [0])], *memory)
    output = _probe(model, first, calls)
    model.head = None
    if not pool.layers:
        raise unsupported_model(model.name, config, "its attention cannot be replaced")
    precision = next(iter(pool.layers.values())).dtype  # some models convert their logits
    if head is not None and _is_head(head, output, _last_output(model, first)[0], precision):
        model.head = head  # else the logits are capped, scaled, biased or projected: the module computes them
        model.plan = Plan.of(model.module, model.variants)
    last = _last_output(model, pack([Chunk(ids[half:], half, 0, [0])], *memory))
    reason = unsupported_layers_reason(config, calls, model.recurrent_layers)
    if reason:
        raise unsupported_model(model.name, config, reason)
    if not agree(_logits(model, last), expected[-1], precision):
        raise unsupported_model(model.name, config, "its logits differ from those of its own forward pass")
    model.kv_layers, model.bytes_per_token = pool.layers, pool.bytes_per_slot


def unsupported_model(name: str, config: Any, reason: str) -> UnsupportedModelError:
    """The error for a model that cannot be decoded here, with the reason."""
    return UnsupportedModelError(
        f"{name!r} ({config.model_type}) cannot be decoded here: {reason}. Only models whose tokens depend "
        "on each other through attention over keys and values, or through states like those of Mamba-2 and "
        "gated delta rules, are supported: choose another model."
    )


def _probe(model: CausalModel, batch: ForwardBatch, calls: list[LayerCall]) -> Tensor:
    """`_last_output`, which also records the layers' attention calls in `calls`."""
    module: Any = model.module
    module.set_attn_implementation(PROBE)
    try:
        return _last_output(model, batch, calls=calls)
    finally:
        module.set_attn_implementation(ATTENTION)


def plain_variant_logits(model: CausalModel, ids: Tensor, variant: int = 0, begin: int = 0) -> Tensor:
    """Logits of one variant by transformers' attention. Nothing else may run on the model at the same time.

    Args:
        model: The model.
        ids: [1, T] int64 token ids.
        variant: 0 for the model itself, i for its i-th adapter.
        begin: Position from which the adapter acts.

    Returns:
        [T, V].
    """
    variants = torch.where(torch.arange(ids.shape[1], device=model.device) < begin, 0, variant)
    model.router.route(variants, [variant])
    return plain_logits(model.module, ids.to(model.device)).to(ids.device)


@torch.inference_mode()
def plain_logits(module: Any, ids: Tensor) -> Tensor:
    """Logits by transformers' attention, without a cache: [1, T] int64 token ids to [T, V]."""
    module.set_attn_implementation("eager")
    try:
        with on_device(ids.device):
            logits: Tensor = module(input_ids=ids, use_cache=False).logits[0]
    finally:
        module.set_attn_implementation(ATTENTION)
    return logits


def _output_matrix(module: Any) -> Tensor | None:
    head = module.get_output_embeddings()
    # A product with the weight would skip the hooks of layers that are spread over devices or processes.
    is_plain = type(head.weight) in {nn.Parameter, Tensor, PackedWeight} and not hasattr(head, "_hf_hook")
    return head.weight if is_plain and getattr(head, "bias", None) is None else None


def _is_head(head: Tensor, output: Tensor, logits: Tensor, precision: torch.dtype) -> bool:
    """Whether [V] logits are the product of an output with a matrix, up to their rounding."""
    if head.shape[-1] != output.shape[-1]:
        return False
    tolerance = max(2 * torch.finfo(precision).eps, 1e-4) * float(logits.abs().max())
    return torch.allclose(product(output, head)[0].float(), logits.float(), rtol=0, atol=tolerance)


def _last_output(model: CausalModel, batch: ForwardBatch, **extras: Any) -> Tensor:
    return model(batch, [0], torch.tensor([batch.ids.shape[1] - 1], device=batch.ids.device), **extras)


def _logits(model: CausalModel, output: Tensor) -> Tensor:
    return (output if model.head is None else product(output, model.head))[0]


def agree(logits: Tensor, expected: Tensor, precision: torch.dtype) -> bool:
    """Whether two [V] logits give the same probabilities, up to the rounding of activations of a type."""
    error = relative_error(logits.float(), expected.float())
    logger.debug("the engine's logits differ from the model's own by %.2g standard deviations", error)
    return error <= TOLERANCE[precision]


def relative_error(logits: Tensor, expected: Tensor) -> float:
    """Root mean square of the differences of [V] logits, in standard deviations of the expected ones.

    A constant on all logits changes no probability, so it does not count. One rounding error in a hundred
    thousand does not decide, as it would by the largest difference.
    """
    return float((logits - expected).std(correction=0) / (expected.std(correction=0) + 1e-6))


def text_config(module: Any) -> Any:
    """The configuration of a model's text part."""
    return module.config.get_text_config()
