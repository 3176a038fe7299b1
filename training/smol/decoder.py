"""Decoding of many rows, one token each per step, over a key/value cache of fixed size."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F

from .llama import SHAPE, Layer, Llama, rope_table

if TYPE_CHECKING:
    from torch import Tensor

BUCKET = 128


def attended_tokens(position: int, tokens: int) -> int:
    """Return how much of a cache of `tokens` to attend to: few sizes, so that graphs are reused."""
    return min(tokens, (position // BUCKET + 1) * BUCKET)


class Decoder:
    """Steps a model over rows that share one position.

    Args:
        model: The model, in the precision to decode in.
        rows: The number of rows.
        tokens: The size of the cache.
    """

    def __init__(self, model: Llama, rows: int, tokens: int) -> None:
        weight = model.embed_tokens.weight
        self.model = model
        self.layers = [cast("Layer", layer) for layer in model.layers]
        shape = (rows, SHAPE.key_value_heads, tokens, SHAPE.head)
        self.keys = [weight.new_zeros(shape) for _ in self.layers]
        self.values = [weight.new_zeros(shape) for _ in self.layers]
        self.cos, self.sin = rope_table(weight.device, weight.dtype)

    def step(self, ids: Tensor, position: Tensor, attended: int) -> Tensor:
        """Decode one token of every row.

        Args:
            ids: The tokens at `position`, [rows].
            position: Their position, [1]; a tensor, so that a CUDA graph can be replayed.
            attended: How many tokens of the cache to attend to.

        Returns:
            Logits of the next token, [rows, vocabulary].
        """
        x = self.model.embed_tokens(ids)[:, None]
        cos, sin = self.cos[position], self.sin[position]
        seen = torch.arange(attended, device=ids.device) <= position
        mask = seen.expand(1, 1, SHAPE.group, attended)
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            query, key, value = layer.self_attn.project(layer.input_layernorm(x), cos, sin)
            keys.index_copy_(2, position, key)
            values.index_copy_(2, position, value)
            # The queries of a group stand in for tokens: keys and values need no repetition.
            query = query.view(-1, SHAPE.key_value_heads, SHAPE.group, SHAPE.head)
            mixed = F.scaled_dot_product_attention(
                query, keys[:, :, :attended], values[:, :, :attended], attn_mask=mask
            )
            x = x + layer.self_attn.o_proj(mixed.reshape(len(mixed), 1, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.logits(self.model.norm(x))[:, 0]
