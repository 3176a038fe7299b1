"""A model whose layers are divided among cards, as vLLM does with tensor parallelism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from langchain_eft.diagnostics.plan.hardware import Cluster
from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.loading.footprint import Footprint

BaseFormat = Literal["fp8", "int8", "int4"]
"""Formats of a base's linear layers in vLLM."""

BITS: dict[BaseFormat, float] = {"fp8": 8.0, "int8": 8.0, "int4": 4.15625}
"""Bits per weight. int4 is that of AWQ and GPTQ: 128 weights share 16 bits of scale and 4 of zero point."""

TENSOR_PARALLEL_SIZES = (1, 2, 4, 8, 16, 32)

_ITEMSIZE = 2
"""Bytes of a number in bfloat16, the type of whatever is not quantized."""


@dataclass(frozen=True)
class ServedModel:
    """A model of a recipe in vLLM.

    Attributes:
        role: What it is in the recipe, in words.
        footprint: Its sizes, in bfloat16.
        base_format: Format of its linear layers; None is bfloat16.
    """

    role: str
    footprint: Footprint
    base_format: BaseFormat | None = None

    @property
    def precision(self) -> str:
        """Format of its weights, in words."""
        return "as stored" if self.footprint.weights.stored is not None else self.base_format or "bfloat16"

    @property
    def read_weights(self) -> int:
        """Number of weights that one token's pass reads, which is half its multiplications and additions."""
        return self.footprint.read.linear + self.footprint.read.other

    def nbytes(self, cards: int) -> int:
        """Bytes of its weights on each of `cards` cards."""
        count = self.footprint.weights
        if count.stored is not None:
            return count.stored // cards
        return int(count.linear * self._bytes_per_linear_weight + count.other * _ITEMSIZE) // cards

    def bytes_read(self, cards: int) -> float:
        """Bytes of weights that a pass over few tokens reads on each of `cards` cards."""
        count = self.footprint.read
        return (count.linear * self._bytes_per_linear_weight + count.other * _ITEMSIZE) / cards

    def kv_bytes(self, cards: int, itemsize: int = _ITEMSIZE) -> int:
        """Bytes of keys and values of a token on each of `cards` cards.

        A card has one KV head at least: more cards than KV heads hold copies.
        """
        heads = max(self.footprint.kv_heads // cards, 1)
        return self.footprint.kv_bytes * itemsize // _ITEMSIZE * heads // self.footprint.kv_heads

    def check(self, cluster: Cluster) -> None:
        """Refuse a number of cards that does not divide the heads.

        vLLM asks for the same in `model_executor/models/llama.py`, by assertions for small models.

        Raises:
            RecipeError: The number of cards divides neither the attention heads nor the KV heads.
        """
        if self._divides(cluster.count):
            return
        sizes = ", ".join(str(size) for size in TENSOR_PARALLEL_SIZES if self._divides(size))
        raise RecipeError(
            f"{cluster.name} cannot share {self.footprint.name!r} ({self.role}), which has "
            f"{self.footprint.heads} attention heads and {self.footprint.kv_heads} KV heads: use {sizes} "
            "cards, or other small models."
        )

    @property
    def _bytes_per_linear_weight(self) -> float:
        return _ITEMSIZE if self.base_format is None else BITS[self.base_format] / 8

    def _divides(self, cards: int) -> bool:
        heads, kv_heads = self.footprint.heads, self.footprint.kv_heads
        return heads % cards == 0 and (kv_heads % cards == 0 or cards % kv_heads == 0)
