"""All models that a recipe loads, and the terms of its formula."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from langchain_eft.engine.models.tensor_parallel import Leader
from langchain_eft.engine.models.causal_model import CausalModel


@dataclass(frozen=True)
class Term:
    """One summand of the formula: a variant of one of the recipe's models, over one of a request's contexts.

    Attributes:
        model: Index into `ModelFamily.models`.
        variant: 0 for the model itself, i for its i-th adapter.
        prompt_name: Name of the prompt that it reads; empty for the request's own prompt.
    """

    model: int
    variant: int = 0
    prompt_name: str = ""


@dataclass(frozen=True)
class ModelFamily:
    """Everything that a recipe loads.

    Attributes:
        models: Distinct sets of weights.
        base: The term of the large model.
        behaviors: Terms (tuned, reference) of each behavior.
        tokenizer: The base's tokenizer, with the recipe's chat template.
        vocabulary: [V] bool, ids that mean the same token everywhere.
        unscaled: [V] bool, ids that follow the small mixture alone, or None where there are none.
        end_ids: Tokens that end an answer.
        window: Longest sequence that every model can hold.
        weight_bytes: Memory of all weights, shared tensors counted once.
        sizes: Bytes of weights that a pass over each of the models reads.
        leader: Of the processes that share the base, where several do.
    """

    models: tuple[CausalModel, ...]
    base: Term
    behaviors: dict[str, tuple[Term, Term]]
    tokenizer: Any
    vocabulary: Tensor
    unscaled: Tensor | None
    end_ids: frozenset[int]
    window: int
    weight_bytes: int
    sizes: tuple[int, ...]
    leader: Leader | None

    def close(self) -> None:
        """Send home the processes that share the base, if there are any."""
        if self.leader:
            self.leader.close()

    def bytes_read(self, terms: Iterable[Term]) -> int:
        """Bytes of weights that one pass over `terms` reads; each model is read once."""
        return sum(self.sizes[model] for model in {term.model for term in terms})
