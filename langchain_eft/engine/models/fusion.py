"""Llama-like decoder layers with fewer and larger operations than transformers' layers, which they replace.

q, k and v become one product, and gate and up another. Each norm with its residual, the rotation and the
gated unit are one Triton kernel each on a GPU. When a small model decodes one token, launching kernels costs
more than its memory traffic, so fusion makes drafts fast. On a CPU it saves calls of torch. There the look
for hooks takes as long as a small operation, so a layer calls the method `forward` of its parts. The
self-check compares the fused model with the model as it was loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from langchain_eft.engine.models.layer_ops import add_rms_norm, angles, rms_norm, rotate, silu_mul
from langchain_eft.engine.models.linear import FusedLinear

_FAMILIES = {
    "llama.modeling_llama.Llama",
    "mistral.modeling_mistral.Mistral",
    "olmo2.modeling_olmo2.Olmo2",
    "qwen2.modeling_qwen2.Qwen2",
    "qwen3.modeling_qwen3.Qwen3",
    "smollm3.modeling_smollm3.SmolLM3",
}

Stream = Tensor | tuple[Tensor, Tensor]
"""Hidden states between layers, [N, hidden], or [1, N, hidden] before the first layer.

A pair is a sum that the next norm will compute.
"""


@torch.inference_mode(mode=False)  # the copies have to be ordinary tensors
def fuse(model: nn.Module) -> bool:
    """Replace a model's decoder layers in place. The original weights are freed.

    Args:
        model: A causal language model of transformers.

    Returns:
        Whether the layers were replaced. The model must belong to a supported family and have ordinary
        floating-point weights, and each layer must be on one device.
    """
    base: Any = getattr(model, "base_model", None)
    layers = getattr(base, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(map(_fusable, layers)):
        return False
    for i, layer in enumerate(layers):
        kind = PostNormLayer if hasattr(layer, "post_feedforward_layernorm") else PreNormLayer
        layers[i] = kind(layer)
    base.norm = Norm(base.norm)
    base.rotary_emb = _Rotation(base.rotary_emb)
    return True


def _fusable(layer: nn.Module) -> bool:
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    if name not in {f"transformers.models.{family}DecoderLayer" for family in _FAMILIES}:
        return False
    weights = list(layer.parameters())
    return (
        not any(module._forward_pre_hooks or hasattr(module, "_hf_hook") for module in layer.modules())
        and layer.mlp.config.hidden_act == "silu"  # type: ignore[union-attr]
        and all(type(m) is nn.Linear for n, m in layer.named_modules() if n.endswith("_proj"))
        and all(type(weight) is nn.Parameter and weight.is_floating_point() for weight in weights)
        and len({(weight.device, weight.dtype) for weight in weights}) == 1
    )


class Norm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019) of a stream or of single heads."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.weight: nn.Parameter = plain.weight
        self.eps = float(plain.variance_epsilon)

    def forward(self, stream: Stream) -> Tensor:
        """The norm of a stream, [1, N, hidden]."""
        return self.enter(stream)[1][None]

    def enter(self, stream: Stream) -> tuple[Tensor, Tensor]:
        """The stream as one tensor, [N, hidden], and its norm."""
        if isinstance(stream, Tensor):
            total = _packed(stream)
            return total, self.normed(total)
        total, new = stream
        return add_rms_norm(new, total, self.weight, self.eps)

    def normed(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """The norm of `x`, [N, size], plus `residual`."""
        return rms_norm(x, self.weight, self.eps, residual)


def _packed(hidden_states: Tensor) -> Tensor:
    """[N, hidden] from that or from [1, N, hidden]."""
    return hidden_states if hidden_states.dim() == 2 else hidden_states.flatten(0, 1)


class _Rotation(nn.Module):
    """The angles by which queries and keys are rotated, in the form that the layers take."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self._plain = plain

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See `layer_ops.angles`."""
        return angles(*self._plain(*args, **kwargs))


class Attention(nn.Module):
    """Self-attention with q, k and v as one product."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        config = plain.config
        self.config, self.layer_idx = config, plain.layer_idx
        self.num_key_value_groups = plain.num_key_value_groups
        self.scaling, self.dim = plain.scaling, plain.head_dim
        self.qkv_proj = FusedLinear.join(
            {name: getattr(plain, name) for name in ("q_proj", "k_proj", "v_proj")}
        )
        self.o_proj = plain.o_proj
        heads, key_heads = (x.out_features // self.dim for x in (plain.q_proj, plain.k_proj))
        self.heads = [heads, key_heads, key_heads]
        # Qwen 3 normalizes each head, Olmo 2 all heads together.
        self.q_norm = Norm(plain.q_norm) if hasattr(plain, "q_norm") else None
        self.k_norm = Norm(plain.k_norm) if hasattr(plain, "k_norm") else None
        norms: dict[str, Any] = {}
        if self.q_norm is not None and self.k_norm is not None:
            weights = self.q_norm.weight, self.k_norm.weight
            if weights[0].shape[0] == self.dim:
                norms = {"query_weight": weights[0], "key_weight": weights[1], "eps": self.q_norm.eps}
        self.norms_all_heads = self.q_norm is not None and not norms
        # Layers with a norm of each head always rotate.
        rotates = getattr(plain, "use_rope", True)
        self.rotation = {"heads": heads, "key_heads": key_heads, **norms} if rotates else None
        self.window = getattr(plain, "sliding_window", getattr(config, "sliding_window", None))
        self._eager = sys.modules[type(plain).__module__].eager_attention_forward

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> Tensor:
        """[N, hidden] to [N, hidden]."""
        states = self.qkv_proj.forward(hidden_states)
        query, key, value = self._rotated(states, position_embeddings)
        attend = _attention_function(self.config._attn_implementation, self._eager)
        out, _ = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            sliding_window=self.window,
            **kwargs,
        )
        result: Tensor = self.o_proj.forward(out.reshape(len(hidden_states), -1))
        return result

    def _rotated(self, states: Tensor, factors: tuple[Tensor, Tensor]) -> Sequence[Tensor]:
        """Queries, keys and values [1, heads, N, dim] out of [N, (heads + 2 key_heads) * dim] states."""
        if self.norms_all_heads:
            query, key, value = torch.split(states, [size * self.dim for size in self.heads], -1)
            normed = self.q_norm.normed(query), self.k_norm.normed(key)  # type: ignore[union-attr]
            states = torch.cat([*normed, value], -1)
        if self.rotation is not None:
            rotate(states, factors, **self.rotation)
        return torch.split(states.view(1, len(states), -1, self.dim).transpose(1, 2), self.heads, 1)


@cache
def _attention_function(name: str, eager: Callable[..., Any]) -> Callable[..., Any]:
    """The attention function that is registered in transformers, which takes a while to look it up."""
    attend: Callable[..., Any] = AttentionInterface().get_interface(name, eager)
    return attend


class GatedUnit(nn.Module):
    """Feed-forward layer with gate and up as one product (Shazeer 2020)."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.gate_up_proj = FusedLinear.join(
            {name: getattr(plain, name) for name in ("gate_proj", "up_proj")}
        )
        self.down_proj = plain.down_proj

    def forward(self, x: Tensor) -> Tensor:
        """[N, hidden] to [N, hidden]."""
        result: Tensor = self.down_proj.forward(silu_mul(self.gate_up_proj.forward(x)))
        return result


class Layer(nn.Module):
    """What all decoder layers have."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.self_attn = Attention(plain.self_attn)
        self.mlp = GatedUnit(plain.mlp)
        self.post_attention_layernorm = Norm(plain.post_attention_layernorm)


class PreNormLayer(Layer):
    """x + attention(norm(x)), then x + unit(norm(x))."""

    def __init__(self, plain: Any) -> None:
        super().__init__(plain)
        self.input_layernorm = Norm(plain.input_layernorm)

    def forward(self, hidden_states: Stream, **kwargs: Any) -> Stream:
        """A stream to a pair, which the next norm adds."""
        total, normed = self.input_layernorm.enter(hidden_states)
        attended = self.self_attn.forward(normed, **kwargs)
        total, normed = self.post_attention_layernorm.enter((total, attended))
        return total, self.mlp.forward(normed)


class PostNormLayer(Layer):
    """x + norm(attention(x)), then x + norm(unit(x)) (Olmo 2)."""

    def __init__(self, plain: Any) -> None:
        super().__init__(plain)
        self.post_feedforward_layernorm = Norm(plain.post_feedforward_layernorm)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """A stream to [N, hidden]."""
        before = _packed(hidden_states)
        attended = self.self_attn.forward(before, **kwargs)
        total = self.post_attention_layernorm.normed(attended, before)
        return self.post_feedforward_layernorm.normed(self.mlp.forward(total), total)
