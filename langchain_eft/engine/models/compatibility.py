"""Which models can be decoded here, and the reason why others cannot.

A model qualifies if attention over keys and values is the only thing that ties its tokens together, and if
its layers say through transformers' attention interface all that matters about it. What a configuration tells
is refused before any weights are read; what only a forward pass tells is found by probing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.attention.paged import paged_attention

PROBE = "eft-probe"
"""Attention as it is used for decoding, which also notes what the layers hand over (keyword `seen`)."""

_ATTENTION_KINDS = {"attention", "full_attention", "global", "sliding_attention"}
_ALIBI_TYPES = {"bloom", "mpt"}
_STATES = (
    "state_size", "ssm_state_size", "mamba_d_state", "lru_width", "conv_L_cache", "linear_num_value_heads"
)  # fmt: skip
_UNDERSTOOD = {"scaling", "sliding_window", "softcap", "s_aux", "dropout", "position_ids"}


def reason_against(config: Any) -> str | None:
    """Why models of a configuration cannot be decoded here, as far as the configuration tells; else None."""
    kinds = {str(kind) for kind in _layer_kinds(config)}
    if any("chunk" in kind for kind in kinds):
        return "some of its layers attend within chunks of the text, which is not supported"
    strangers = kinds - _ATTENTION_KINDS
    if strangers or any(getattr(config, name, None) for name in _STATES):
        named = f" ({', '.join(sorted(strangers))})" if strangers else ""
        return (
            f"it has recurrent or convolutional layers{named}, whose state cannot be rolled back to an "
            "earlier token"
        )
    if _has_alibi(config):
        return "it tells positions by ALiBi, a bias that attention kernels here do not add"
    return None


def _layer_kinds(config: Any) -> Sequence[Any]:
    names = ("layer_types", "layers_block_type", "block_types")
    return next((kinds for name in names if (kinds := getattr(config, name, None))), ())


def _has_alibi(config: Any) -> bool:
    return bool(config.model_type in _ALIBI_TYPES or getattr(config, "alibi", False))


@dataclass(frozen=True)
class LayerCall:
    """What one attention layer handed over.

    Attributes:
        layer: Its index.
        window: Positions that a query sees by the layer's keywords, or None for all.
        masked: The same by the mask that transformers would build.
        extras: Names of what the attention function would have to heed and does not know.
    """

    layer: int
    window: int | None
    masked: int | None
    extras: tuple[str, ...]


def _probing_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    eft: ForwardBatch | None = None,
    seen: list[LayerCall] | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """`paged_attention`, which also appends a `LayerCall` to `seen`."""
    if eft is None or seen is None:
        raise TypeError("it does not hand keywords on to its attention layers")
    extras = [
        name for name, given in settings.items() if name not in _UNDERSTOOD and isinstance(given, Tensor)
    ]
    window = 0
    if attention_mask is not None and attention_mask.numel() == 1:
        window = int(attention_mask)
    elif attention_mask is not None:
        extras.append("a mask of their own")
    layer: Any = module.layer_idx
    seen.append(LayerCall(int(layer), settings.get("sliding_window"), window or None, tuple(extras)))
    return paged_attention(module, query, key, value, None, eft=eft, **settings)


def _probing_mask(*, device: torch.device, local_size: int | None = None, **_: Any) -> Tensor:
    """In the place of a mask, [1, 1, 1, 1] the window that it would have; 0 for none."""
    return torch.full((1, 1, 1, 1), local_size or 0, device=device)


AttentionInterface.register(PROBE, _probing_attention)
AttentionMaskInterface.register(PROBE, _probing_mask)


def reason_against_layers(config: Any, seen: Sequence[LayerCall]) -> str | None:
    """Why a model cannot be decoded here by what its layers handed over; else None.

    A probe is shorter than any real window: one that a layer keeps to itself would not show in logits.

    Args:
        config: The text model's configuration.
        seen: The calls of one forward pass.
    """
    extras = {name for call in seen for name in call.extras}
    if extras:
        return f"its attention layers use {', '.join(sorted(extras))}, which attention here does not know"
    layers = {call.layer for call in seen}
    if len(layers) != config.num_hidden_layers:
        return (
            f"it has {config.num_hidden_layers} layers and {len(layers)} of them attend over keys and values"
        )
    strange = next((call for call in seen if call.window != call.masked), None)
    if strange:
        return (
            f"its layer {strange.layer} sees {strange.masked or 'all'} positions and asks attention for "
            f"{strange.window or 'all'}"
        )
    return None
