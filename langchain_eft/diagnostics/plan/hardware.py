"""Data-center GPUs and groups of them, by the figures of their makers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.errors import RecipeError

CARDS_OF_A_NODE = 8


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: Its name.
        memory: Bytes of memory, as its driver reports them.
        bytes_per_second: Memory bandwidth.
        flops: Dense bfloat16 operations a second.
        fp8_flops: Dense 8-bit floating-point operations a second.
        link_bytes_per_second: Bytes that it can send to the other cards of its node in a second.
    """

    name: str
    memory: int
    bytes_per_second: float
    flops: float
    fp8_flops: float
    link_bytes_per_second: float


CARDS = {
    card.name: card
    for card in (
        Card("H100", 81559 * 2**20, 3.35e12, 989e12, 1979e12, 450e9),
        Card("H200", 143771 * 2**20, 4.8e12, 989e12, 1979e12, 450e9),
        Card("B200", 183359 * 2**20, 8.0e12, 2250e12, 4500e12, 900e9),
    )
}
"""The SXM versions: H100 of 80 GB, H200 of 141 GB, B200 of 180 GB.

Memory is what nvidia-smi shows; the other figures are those of NVIDIA's data sheets, without sparsity.
"""


@dataclass(frozen=True)
class Cluster:
    """Equal cards that share every layer of a model.

    Attributes:
        card: One of them.
        count: How many they are. Up to 8 are in one node.
    """

    card: Card
    count: int

    @classmethod
    def parse(cls, text: str) -> Cluster:
        """The cluster that a text such as `8xH200` names.

        Raises:
            RecipeError: The text names no cluster.
        """
        match = re.fullmatch(r"([1-9]\d*)x(\w+)", text.strip(), re.IGNORECASE)
        if match is None:
            raise RecipeError(f"cards={text!r} is not a number of cards and their name, such as '8xH200'.")
        if (card := CARDS.get(match[2].upper())) is None:
            raise RecipeError(f"cards={text!r}: the card {match[2]!r} is unknown: use {quoted_names(CARDS)}.")
        return cls(card, int(match[1]))

    @property
    def name(self) -> str:
        """The notation that `parse` reads."""
        return f"{self.count}x{self.card.name}"

    @property
    def in_one_node(self) -> bool:
        """Whether all cards reach one another by NVLink."""
        return self.count <= CARDS_OF_A_NODE
