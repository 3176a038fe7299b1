"""The check of every loaded model against its own forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from langchain_eft.engine.attention.batch import ForwardBatch, has_kernel
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.attention.paged import ATTENTION
from langchain_eft.engine.errors import UnsupportedModelError
from langchain_eft.engine.models.compatibility import PROBE, LayerCall, reason_against_layers
from langchain_eft.engine.models.linear import product
from langchain_eft.engine.models.lora import LoraAdapter
from langchain_eft.engine.models.prepacked import prepackable

if TYPE_CHECKING:
    pass
from langchain_eft.engine.models.batch import Chunk, pack
from langchain_eft.engine.models.causal_model import CausalModel

_TOLERANCE = {torch.float32: 2e-3}


_PROBE = "The quick brown fox jumps over the lazy dog and runs."


@torch.inference_mode()
def prepare(name: str, module: nn.Module, adapters: Sequence[LoraAdapter], tokenizer: Any) -> CausalModel:
    """Make a loaded model ready for decoding, and check that this leaves its logits alone.

    Compares chunked decoding over our KV pool with the model's forward pass as it was loaded, variant 0. Also
    finds out whether the logits are a plain product with the output matrix, and how much KV memory a token
    takes.

    Raises:
        RecipeError: Adapters of another model.
        UnsupportedModelError: The two differ (recurrent state, ALiBi, shared KV and the like).
    """
    ids: list[int] = tokenizer(_PROBE, add_special_tokens=False).input_ids[:12]
    with _refusing(name, module):
        expected = plain_logits(module, torch.tensor([ids], device=next(module.parameters()).device))
    if has_kernel(expected.device):
        from langchain_eft.engine.models.fusion import fuse

        fuse(module)
    model = CausalModel(name, module, adapters)
    _leave_file(module)
    with _refusing(name, module):
        _self_check(model, ids, expected)
    return model


@torch.inference_mode(mode=False)  # the copies are ordinary weights
def _leave_file(module: nn.Module) -> None:
    """Copy the weights that are not prepacked out of their file.

    The whole file stays mapped into memory as long as one tensor is a part of it.
    """
    for weight in module.parameters():
        if prepackable(weight):
            weight.data = weight.data.clone()


@contextmanager
def _refusing(name: str, module: Any) -> Iterator[None]:
    try:
        yield
    except (TypeError, AttributeError, RuntimeError, ValueError) as error:
        reason = f"it cannot be decoded row by row ({type(error).__name__}: {error})"
        raise unsupported(name, module.config.get_text_config(), reason) from error


def _self_check(model: CausalModel, ids: list[int], expected: Tensor) -> None:
    half, pool, device = len(ids) // 2, KVPool(len(ids)), expected.device
    config = text_config(model.module)
    seen: list[LayerCall] = []
    tolerance = _TOLERANCE.get(expected.dtype, 0.1) * float(expected.float().std() + 1)
    model.head = _output_matrix(model.module)
    first = _probe(model, pack([Chunk(ids[:half], 0, 0, [0])], pool, len(ids), device), seen)
    if not _is_head(model.head, first, expected[half - 1], tolerance):
        model.head = None  # soft-capped, scaled, biased or projected: the model makes its own logits
    last = _last_output(model, pack([Chunk(ids[half:], half, 0, [0])], pool, len(ids), device))
    reason = reason_against_layers(config, seen)
    if reason:
        raise unsupported(model.name, config, reason)
    if not _agree(_logits(model, last), expected[-1], tolerance):
        raise unsupported(model.name, config, "its logits differ from those of its own forward pass")
    model.bytes_per_token = pool.bytes_per_slot


def unsupported(name: str, config: Any, reason: str) -> UnsupportedModelError:
    """The error that says why a model cannot be decoded here."""
    return UnsupportedModelError(
        f"{name!r} ({config.model_type}) cannot be decoded here: {reason}. Only models whose attention over "
        "keys and values is all that ties tokens together are supported: choose another model."
    )


def _probe(model: CausalModel, batch: ForwardBatch, seen: list[LayerCall]) -> Tensor:
    """`_last_output`, which also notes what the layers hand over."""
    module: Any = model.module
    module.set_attn_implementation(PROBE)
    try:
        return _last_output(model, batch, seen=seen)
    finally:
        module.set_attn_implementation(ATTENTION)


def own_logits(model: CausalModel, ids: Tensor, variant: int = 0) -> Tensor:
    """Logits of one variant without our attention. Nothing else may run on the model meanwhile.

    Args:
        model: Whose logits.
        ids: [1, T] int64 token ids.
        variant: 0 for the model itself, i for its i-th adapter.

    Returns:
        [T, V].
    """
    model.router.route(torch.full((ids.shape[1],), variant, device=model.device), [variant])
    return plain_logits(model.module, ids.to(model.device)).to(ids.device)


@torch.inference_mode()
def plain_logits(module: Any, ids: Tensor) -> Tensor:
    """Logits by transformers' attention, without cache: [1, T] int64 token ids to [T, V]."""
    module.set_attn_implementation("eager")
    try:
        logits: Tensor = module(input_ids=ids, use_cache=False).logits[0]
    finally:
        module.set_attn_implementation(ATTENTION)
    return logits


def _output_matrix(module: Any) -> Tensor | None:
    head = module.get_output_embeddings()
    # The hooks of layers that are spread over devices or processes would be left out.
    plain = type(head.weight) in {nn.Parameter, Tensor} and not hasattr(head, "_hf_hook")
    return head.weight if plain and getattr(head, "bias", None) is None else None


def _is_head(head: Tensor | None, output: Tensor, expected: Tensor, tolerance: float) -> bool:
    if head is None or head.shape[-1] != output.shape[-1]:
        return False
    return _agree(product(output, head)[0], expected, tolerance)


def _last_output(model: CausalModel, batch: ForwardBatch, **extras: Any) -> Tensor:
    return model(batch, [0], torch.tensor([batch.ids.shape[1] - 1], device=batch.ids.device), **extras)


def _logits(model: CausalModel, output: Tensor) -> Tensor:
    return (output if model.head is None else product(output, model.head))[0]


def _agree(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return torch.allclose(found.float(), expected.float(), rtol=0, atol=tolerance)


def text_config(module: Any) -> Any:
    """The part of a model's configuration that is about text."""
    return module.config.get_text_config()
