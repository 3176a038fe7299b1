"""Whether vLLM can divide the attention heads of every model among the ranks of tensor parallelism."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_eft.engine.errors import RecipeError
from langchain_eft.engine.models.heads import kv_heads


@dataclass(frozen=True)
class Heads:
    """The attention heads of a model.

    Attributes:
        query: Number of heads.
        key_value: Number of heads of keys and values.
    """

    query: int
    key_value: int

    @classmethod
    def of(cls, config: Any) -> Heads:
        """The heads of a model, by the configuration of its text part."""
        return cls(int(config.num_attention_heads), kv_heads(config))

    def divisible_by(self, ranks: int) -> bool:
        """Whether every rank gets equally many heads, or its own copy of a head of keys and values."""
        more, fewer = max(self.key_value, ranks), min(self.key_value, ranks)
        return self.query % ranks == 0 and more % fewer == 0


def refuse_undividable(heads: Mapping[str, Heads], ranks: int) -> None:
    """Refuse a number of ranks that does not divide the heads of every model.

    Args:
        heads: The heads of each model, by its name.
        ranks: Size of tensor parallelism.

    Raises:
        RecipeError: With the first such model, and the numbers of ranks that divide all models.
    """
    for name, model in heads.items():
        if not model.divisible_by(ranks):
            possible = [
                n for n in range(1, model.query + 1) if all(h.divisible_by(n) for h in heads.values())
            ]
            raise RecipeError(
                f"The model {name!r} has {model.query} attention heads and {model.key_value} heads of keys "
                f"and values, which {ranks} ranks cannot share: choose a tensor parallel size of "
                f"{' or '.join(map(str, possible))}."
            )
