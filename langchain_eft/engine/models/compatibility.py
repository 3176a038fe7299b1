"""Which models can be decoded here, and the reasons why others cannot.

A model is supported under two conditions. Its tokens may depend on each other only through attention over
keys and values, and through the recurrent states of `recurrence`. Its layers must pass everything that
matters about their attention through transformers' attention interface. Some models are refused by their
configuration, before any weights are read; others only by a probe of one forward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.attention.paged import paged_attention
from langchain_eft.engine.models.window import context_window

PROBE = "eft-probe"
"""Name of the attention function that decodes and also records the layers' calls (keyword `calls`)."""

_ATTENTION_KINDS = {"attention", "full_attention", "global", "sliding_attention"}
_ALIBI_TYPES = {"bloom", "mpt"}
_HYBRIDS = {
    "bamba", "falcon_h1", "granitemoehybrid", "kimi_linear", "lfm2", "lfm2_moe", "nemotron_h", "olmo_hybrid",
    "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next",
}  # fmt: skip
"""Families with recurrent layers that are tested here."""

_WITHOUT_TOKENS_BEFORE = {"mlp", "moe"}
"""Kinds of layers in which tokens do not depend on each other."""

_RECURRENT_SETTINGS = (
    "state_size", "ssm_state_size", "mamba_d_state", "lru_width", "conv_L_cache", "linear_num_value_heads"
)  # fmt: skip
_INDEXER_SETTINGS = ("index_head_dim", "indexer_head_dim")
_SUPPORTED_KEYWORDS = {"scaling", "sliding_window", "softcap", "s_aux", "dropout", "position_ids"}


def unsupported_reason(config: Any) -> str | None:
    """The reason in a configuration why its models cannot be decoded here, or None."""
    kinds = {str(kind) for kind in _layer_kinds(config)}
    if any("chunk" in kind for kind in kinds):
        return "some of its layers attend within chunks of the text, which is not supported"
    other_kinds = kinds - _ATTENTION_KINDS
    if other_kinds and any(getattr(config, name, None) for name in _INDEXER_SETTINGS):
        return "a sparse indexer chooses the positions that its layers attend to, which is not supported"
    is_recurrent = other_kinds or any(getattr(config, name, None) for name in _RECURRENT_SETTINGS)
    if is_recurrent and not is_hybrid(config):
        names = f" ({', '.join(sorted(other_kinds))})" if other_kinds else ""
        return f"it has recurrent or convolutional layers{names} of a kind that is not supported"
    if getattr(config, "zero_expert_num", None):
        return "it has experts that pass tokens through, and shapes depend on how many tokens choose them"
    if _has_alibi(config):
        return "it encodes positions by ALiBi, a bias that the attention kernels here do not add"
    return None


def is_hybrid(config: Any) -> bool:
    """Whether models of a configuration have recurrent layers that can be decoded here."""
    return config.model_type in _HYBRIDS


def _layer_kinds(config: Any) -> Sequence[Any]:
    names = ("layer_types", "layers_block_type", "block_types")
    return next((kinds for name in names if (kinds := getattr(config, name, None))), ())


def _has_alibi(config: Any) -> bool:
    return bool(config.model_type in _ALIBI_TYPES or getattr(config, "alibi", False))


@dataclass(frozen=True)
class LayerCall:
    """One call of the attention function by a layer."""

    layer: int
    window: int | None  # number of positions that a query sees by the layer's keywords, or None for all
    mask_window: int | None  # the same number by the mask that transformers would build
    # names of arguments that matter and that the attention function does not support
    unsupported: tuple[str, ...]


def _probing_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    eft: ForwardBatch | None = None,
    calls: list[LayerCall] | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """`paged_attention`, which also appends a `LayerCall` to `calls`."""
    if eft is None or calls is None:
        raise TypeError("it does not pass keywords to its attention layers")
    unsupported = [
        name
        for name, value in settings.items()
        if name not in _SUPPORTED_KEYWORDS and isinstance(value, Tensor)
    ]
    mask_window = 0
    if attention_mask is not None and attention_mask.numel() == 1:
        mask_window = int(attention_mask)
    elif attention_mask is not None:
        unsupported.append("a mask of their own")
    layer: Any = module.layer_idx
    calls.append(
        LayerCall(int(layer), settings.get("sliding_window"), mask_window or None, tuple(unsupported))
    )
    return paged_attention(module, query, key, value, None, eft=eft, **settings)


def _probing_mask(*, device: torch.device, local_size: int | None = None, **_: Any) -> Tensor:
    """The window of a mask as a [1, 1, 1, 1] tensor, in place of the mask; 0 means no window."""
    return torch.full((1, 1, 1, 1), local_size or 0, device=device)


AttentionInterface.register(PROBE, _probing_attention)
AttentionMaskInterface.register(PROBE, _probing_mask)


def unsupported_layers_reason(
    config: Any, calls: Sequence[LayerCall], recurrent: Collection[int]
) -> str | None:
    """The reason in a model's attention calls why it cannot be decoded here, or None.

    The windows are compared here because a probe is shorter than any real window: a missing window would not
    change its logits.

    Args:
        config: The model's configuration.
        calls: The calls.
        recurrent: Numbers of the layers with a recurrent state.
    """
    unsupported = {name for call in calls for name in call.unsupported}
    if unsupported:
        return f"its attention layers use {', '.join(sorted(unsupported))}, which is not supported here"
    kinds = enumerate(_layer_kinds(config))
    alone = {number for number, kind in kinds if str(kind) in _WITHOUT_TOKENS_BEFORE}
    layers = {call.layer for call in calls} | set(recurrent) | alone
    if len(layers) != config.num_hidden_layers:
        what = "have a state or attend" if recurrent else "attend"
        return f"it has {config.num_hidden_layers} layers, but only {len(layers)} {what} over keys and values"
    every = context_window(config)  # some families name a window that hides nothing
    differing = next(
        (call for call in calls if min(call.window or every, every) != min(call.mask_window or every, every)),
        None,
    )
    if differing:
        return (
            f"the mask of its layer {differing.layer} shows {differing.mask_window or 'all'} positions, but "
            f"the layer asks attention for {differing.window or 'all'}"
        )
    return None
