"""A model whose layers are divided among cards, as vLLM does with tensor parallelism."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from langchain_eft.diagnostics.plan.footprint import Footprint
from langchain_eft.vllm.attention_heads import Heads

BaseFormat = Literal["fp8", "int8", "int4"]
"""Formats of a base's linear layers in vLLM."""

BITS: dict[BaseFormat, float] = {"fp8": 8.0, "int8": 8.0, "int4": 4.15625}
"""Bits per weight. int4 is that of AWQ and GPTQ: 128 weights share 16 bits of scale and 4 of zero point."""

_ITEMSIZE = 2
"""Bytes of a number in bfloat16, the type of whatever is not quantized."""


@dataclass(frozen=True)
class ShardedModel:
    """A model of a recipe in vLLM, with its adapters.

    Adapters are further rows of the model's pass. All rows share its weights; each has keys and values of its
    own.

    Attributes:
        role: What it is in the recipe, in words.
        footprint: Its sizes, in bfloat16.
        base_format: Format of its linear layers; None is bfloat16.
        adapters: Number of weights of each of its adapters, by name. Every card holds all of them.
    """

    role: str
    footprint: Footprint
    base_format: BaseFormat | None = None
    adapters: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of its pass for each token: its own, and one for each adapter."""
        return 1 + len(self.adapters)

    @property
    def heads(self) -> Heads:
        """Its attention heads."""
        return Heads(self.footprint.heads, self.footprint.kv_heads)

    @property
    def precision(self) -> str:
        """Format of its weights, in words."""
        return "as stored" if self.footprint.weights.stored is not None else self.base_format or "bfloat16"

    @property
    def read_weights(self) -> int:
        """Number of weights that a row reads, which is half its multiplications and additions."""
        return self.footprint.read.linear + self.footprint.read.other

    def nbytes(self, cards: int) -> int:
        """Bytes of its weights on each of `cards` cards, without adapters."""
        count = self.footprint.weights
        if count.stored is not None:
            return count.stored // cards
        return int(count.linear * self._bytes_per_linear_weight + count.other * _ITEMSIZE) // cards

    def bytes_read(self, cards: int) -> float:
        """Bytes of weights that a pass over few tokens reads on each of `cards` cards."""
        count = self.footprint.read
        shared = (count.linear * self._bytes_per_linear_weight + count.other * _ITEMSIZE) / cards
        return shared + sum(self.adapters.values()) * _ITEMSIZE

    def kv_bytes(self, cards: int, itemsize: int = _ITEMSIZE) -> int:
        """Bytes of keys and values of a token on each of `cards` cards, over all rows.

        A card has one KV head at least: more cards than KV heads hold copies.
        """
        heads = max(self.footprint.kv_heads // cards, 1)
        return self.rows * self.footprint.kv_bytes * itemsize // _ITEMSIZE * heads // self.footprint.kv_heads

    @property
    def _bytes_per_linear_weight(self) -> float:
        return _ITEMSIZE if self.base_format is None else BITS[self.base_format] / 8
