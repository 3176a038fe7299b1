"""A compact Llama in plain torch: enough to sample from, distil and adapt SmolLM2 quickly.

The parameters have the names that they have inside Hugging Face's `LlamaForCausalLM.model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """The sizes of SmolLM2-135M, apart from its number of layers."""

    vocabulary: int = 49152
    hidden: int = 576
    heads: int = 9
    key_value_heads: int = 3
    head: int = 64
    feed_forward: int = 1536
    positions: int = 2048
    norm_epsilon: float = 1e-5
    rope_theta: float = 100000.0

    @property
    def group(self) -> int:
        """Return how many query heads share one key and value head."""
        return self.heads // self.key_value_heads


SHAPE = Shape()


def rope_table(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of the rotary embedding, each [positions, head]."""
    steps = torch.arange(0, SHAPE.head, 2, device=device, dtype=torch.float32)
    frequency = 1.0 / SHAPE.rope_theta ** (steps / SHAPE.head)
    position = torch.arange(SHAPE.positions, device=device, dtype=torch.float32)
    angle = torch.outer(position, frequency)
    angle = torch.cat([angle, angle], -1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads by their positions.

    Args:
        x: Queries or keys, [rows, heads, tokens, head].
        cos: Cosines of the positions, [tokens, head].
        sin: Sines of the positions, [tokens, head].

    Returns:
        The rotated heads, in the shape of `x`.
    """
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _split_heads(x: Tensor) -> Tensor:
    """Turn [rows, tokens, heads * head] into [rows, heads, tokens, head]."""
    return x.view(*x.shape[:-1], -1, SHAPE.head).transpose(1, 2)


class Norm(nn.Module):
    """Root-mean-square norm, computed in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(SHAPE.hidden))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension of `x`, [..., hidden]."""
        normed = F.rms_norm(x.float(), (SHAPE.hidden,), None, SHAPE.norm_epsilon)
        return normed.to(x.dtype) * self.weight


class Attention(nn.Module):
    """Grouped-query attention."""

    def __init__(self) -> None:
        super().__init__()
        queries, keys = SHAPE.heads * SHAPE.head, SHAPE.key_value_heads * SHAPE.head
        self.q_proj = nn.Linear(SHAPE.hidden, queries, bias=False)
        self.k_proj = nn.Linear(SHAPE.hidden, keys, bias=False)
        self.v_proj = nn.Linear(SHAPE.hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, SHAPE.hidden, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries, rotated keys and values.

        Args:
            x: Normed hidden states, [rows, tokens, hidden].
            cos: Cosines of the positions, [tokens, head].
            sin: Sines of the positions, [tokens, head].

        Returns:
            Queries [rows, heads, tokens, head]; keys and values
            [rows, key_value_heads, tokens, head].
        """
        queries = _split_heads(self.q_proj(x))
        keys = _split_heads(self.k_proj(x))
        values = _split_heads(self.v_proj(x))
        return rotate(queries, cos, sin), rotate(keys, cos, sin), values

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return the causal attention over whole rows, [rows, tokens, hidden]."""
        queries, keys, values = self.project(x, cos, sin)
        keys = keys.repeat_interleave(SHAPE.group, 1)
        values = values.repeat_interleave(SHAPE.group, 1)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """Gated feed-forward block."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(SHAPE.hidden, SHAPE.feed_forward, bias=False)
        self.up_proj = nn.Linear(SHAPE.hidden, SHAPE.feed_forward, bias=False)
        self.down_proj = nn.Linear(SHAPE.feed_forward, SHAPE.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map hidden states [..., hidden] to an update of the same shape."""
        update: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return update


class Layer(nn.Module):
    """One transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = Norm()
        self.self_attn = Attention()
        self.post_attention_layernorm = Norm()
        self.mlp = FeedForward()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map hidden states [rows, tokens, hidden] to those of the next layer."""
        attended: Tensor = x + self.self_attn(self.input_layernorm(x), cos, sin)
        output: Tensor = attended + self.mlp(self.post_attention_layernorm(attended))
        return output


class Llama(nn.Module):
    """A Llama whose output head is its token embedding."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(SHAPE.vocabulary, SHAPE.hidden)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm = Norm()

    def forward(self, ids: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return the normed last hidden states.

        Args:
            ids: Token ids, [rows, tokens].
            cos: Cosines of the positions, [tokens, head].
            sin: Sines of the positions, [tokens, head].

        Returns:
            Hidden states, [rows, tokens, hidden].
        """
        x: Tensor = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        normed: Tensor = self.norm(x)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states [..., hidden] to logits [..., vocabulary]."""
        return F.linear(hidden, self.embed_tokens.weight)
