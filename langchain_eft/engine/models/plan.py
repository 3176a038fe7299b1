"""The forward pass of a fused model on a CPU as one program: Python runs once a pass, not once an operation.

`fusion` defines what a layer computes; here it is written down as steps over memory that all layers share.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from langchain_eft.engine.attention.batch import ForwardBatch
from langchain_eft.engine.attention.in_place import RowGroup, add_attention, attention_scratch
from langchain_eft.engine.attention.kv_pool import KVPool
from langchain_eft.engine.kernels.layer import add_norm, add_rotation, add_silu_mul, add_sum, add_take
from langchain_eft.engine.kernels.products import SUMMED, add_product, padded_outputs
from langchain_eft.engine.kernels.program import Extent, Program
from langchain_eft.engine.models.fusion import Attention, GatedUnit, Norm, PreNormLayer
from langchain_eft.engine.models.packed_weight import PackedWeight

_GROUPS = 2
"""Groups of rows that a batch mostly has: those that decode, and chunks of prompts."""


class Plan:
    """The forward passes of one model without its output layer, by one thread at a time.

    Args:
        base: The base model of a fused model, with packed weights.
        variants: Number of variants.
    """

    def __init__(self, base: Any, variants: int) -> None:
        self._base, self._variants = base, variants
        self._passes: WeakKeyDictionary[KVPool, _Pass] = WeakKeyDictionary()

    @classmethod
    def of(cls, module: Any, variants: int) -> Self | None:
        """The plan of a model, or None if it is not fused, or its weights are not packed."""
        base = module.base_model
        if not isinstance(getattr(base, "norm", None), Norm):
            return None
        linear = base.layers[0].mlp.down_proj
        return cls(base, variants) if isinstance(linear.weight, PackedWeight) else None

    def __call__(self, batch: ForwardBatch) -> Tensor:
        """The last hidden states, [N, hidden]. They change in the next pass."""
        known = self._passes.get(batch.pool)
        if known is None or not known.fits(batch):
            rows = max(16, batch.ids.shape[1], known.size if known else 0)
            size = 1 << (rows - 1).bit_length()  # so that few sizes are written down
            groups = max(_GROUPS, len(batch.paged))
            known = _Pass(self._base, batch.pool, size, groups, self._variants)
            self._passes[batch.pool] = known
        return known(batch)


class _Pass:
    """A program for batches up to some size.

    Args:
        base: The fused model.
        pool: The model's KV memory.
        size: Most tokens of a batch.
        groups: Most groups of rows.
        variants: Number of variants.
    """

    def __init__(self, base: Any, pool: KVPool, size: int, groups: int, variants: int) -> None:
        self._base, self.size, self._threads = base, size, torch.get_num_threads()
        self._program, self._tokens = Program(), Extent()
        self._groups = [RowGroup() for _ in range(groups)]
        self._updated = {
            variant: (Extent(), torch.zeros(size, dtype=torch.int64)) for variant in range(1, variants)
        }
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self._scratch: Tensor | None = None
        attention, hidden = base.layers[0].self_attn, len(base.norm.weight)
        self._total, self._normed = (self._buffer(name, hidden) for name in ("total", "normed"))
        self._cos, self._sin = (self._buffer(name, attention.dim) for name in ("cos", "sin"))
        new: Tensor | None = None
        for layer in base.layers:
            write = self._pre_norm if isinstance(layer, PreNormLayer) else self._post_norm
            new = write(layer, new, pool)
        self._enter(base.norm, new)

    def fits(self, batch: ForwardBatch) -> bool:
        """Whether the program serves a batch."""
        return (
            batch.ids.shape[1] <= self.size
            and len(batch.paged) <= len(self._groups)
            and torch.get_num_threads() <= self._threads
        )

    def __call__(self, batch: ForwardBatch) -> Tensor:
        """The last hidden states, [N, hidden]."""
        count = batch.ids.shape[1]
        embedded = self._base.embed_tokens(batch.ids)
        cos, sin = self._base.rotary_emb(embedded, batch.positions)
        self._total[:count], self._cos[:count], self._sin[:count] = embedded[0], cos[:, 0], sin[:, 0]
        self._tokens.rows = count
        variants = batch.variants.numpy()
        for variant, (extent, index) in self._updated.items():
            rows = np.flatnonzero(variants == variant)
            extent.rows = len(rows)
            index.numpy()[: len(rows)] = rows
        for group, paged in zip_longest(self._groups, batch.paged):
            group.set(paged)
        self._program.run()
        return self._normed[:count]

    def _buffer(self, name: str, width: int) -> Tensor:
        """Memory for [size, width] numbers, which all operations of a name share."""
        if (name, width) not in self._buffers:
            self._buffers[name, width] = torch.zeros(self.size, width)
        return self._buffers[name, width]

    def _pre_norm(self, layer: Any, new: Tensor | None, pool: KVPool) -> Tensor:
        """See `fusion.PreNormLayer`. `new` is what the next norm adds to the stream."""
        self._enter(layer.input_layernorm, new)
        attended = self._attention(layer.self_attn, self._normed, pool)
        self._enter(layer.post_attention_layernorm, attended)
        return self._unit(layer.mlp, self._normed)

    def _post_norm(self, layer: Any, _: Tensor | None, pool: KVPool) -> None:
        """See `fusion.PostNormLayer`."""
        self._leave(layer.post_attention_layernorm, self._attention(layer.self_attn, self._total, pool))
        self._leave(layer.post_feedforward_layernorm, self._unit(layer.mlp, self._total))

    def _enter(self, norm: Norm, new: Tensor | None) -> None:
        """See `fusion.Norm.enter`."""
        x, total = (self._total, None) if new is None else (new, self._total)
        add_norm(self._program, x, norm.weight, norm.eps, self._normed, self._tokens, total=total)

    def _leave(self, norm: Norm, new: Tensor) -> None:
        """The norm of `new` is added to the stream."""
        add_norm(self._program, new, norm.weight, norm.eps, self._total, self._tokens, after=self._total)

    def _attention(self, layer: Attention, x: Tensor, pool: KVPool) -> Tensor:
        states = self._linear("states", layer.qkv_proj, x)
        sizes = [heads * layer.dim for heads in layer.heads]
        if layer.norms_all_heads:
            parts = torch.split(states, sizes, 1)
            for part, norm in zip(parts, (layer.q_norm, layer.k_norm), strict=False):
                assert norm is not None  # noqa: S101  (both are there)
                add_norm(self._program, part, norm.weight, norm.eps, part, self._tokens)
        if layer.rotation is not None:
            add_rotation(self._program, states, self._cos, self._sin, self._tokens, **layer.rotation)
        by_head = states.as_strided(
            (self.size, sum(layer.heads), layer.dim), (states.stride(0), layer.dim, 1)
        )
        query, keys, values = torch.split(by_head, layer.heads, 1)
        if self._scratch is None:
            self._scratch = attention_scratch(query, keys, values)
        memory = pool.layer(layer.layer_idx, *(part.transpose(0, 1)[None] for part in (keys, values)))
        attended = self._buffer("attended", sizes[0])
        add_attention(
            self._program, query, keys, values, memory, self._groups, attended, self._scratch,
            scaling=layer.scaling, sliding_window=layer.window,
        )  # fmt: skip
        return self._linear("new", layer.o_proj, attended)

    def _unit(self, layer: GatedUnit, x: Tensor) -> Tensor:
        gate_up = self._linear("gate_up", layer.gate_up_proj, x)
        gated = self._buffer("gated", gate_up.shape[1] // 2)
        add_silu_mul(self._program, gate_up, gated, self._tokens)
        return self._linear("new", layer.down_proj, gated)

    def _linear(self, name: str, layer: Any, x: Tensor) -> Tensor:
        y = self._product(name, layer.weight, x, self._tokens)
        if layer.bias is not None:
            add_sum(self._program, layer.bias, y, self._tokens)
        for variant, down, up in layer.updates():
            extent, index = self._updated[variant]
            own = self._buffer("own", x.shape[1])
            add_take(self._program, x, index, own, extent)
            update = self._product("update", up, self._product("ranks", down, own, extent), extent)
            add_sum(self._program, update, y, extent, index)
        return y

    def _product(self, name: str, weight: PackedWeight, x: Tensor, extent: Extent) -> Tensor:
        y = self._buffer(name, padded_outputs(weight.parts))
        sums = self._buffer("sums", x.shape[1] // SUMMED)
        add_product(self._program, weight.parts, x, sums, y, extent)
        return y[:, : weight.shape[0]]
