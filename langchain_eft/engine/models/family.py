"""The loaded models of a recipe, and the terms of its formula."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from langchain_eft.engine.error_text import quoted_names
from langchain_eft.engine.models.causal_model import CausalModel

if TYPE_CHECKING:
    from langchain_eft.engine.models.tensor_parallel import Leader


@dataclass(frozen=True)
class Term:
    """One term of the formula: a variant of one model, which reads one of a request's prompts."""

    model: int  # index into `ModelFamily.models`
    variant: int = 0  # 0 for the model itself, i for its i-th adapter
    prompt_name: str = ""  # name of the prompt that the term reads; empty for the request's own prompt
    begin: int = 0  # position from which the adapter acts; before it, the variant is the model itself

    @property
    def weights(self) -> Term:
        """The variant alone, whatever it reads."""
        return Term(self.model, self.variant)

    @property
    def unadapted(self) -> Term:
        """The model itself, which reads the same prompt."""
        return Term(self.model, prompt_name=self.prompt_name)


@dataclass(frozen=True)
class ModelFamily:
    """The loaded models of a recipe."""

    models: tuple[CausalModel, ...]  # one for each set of weights
    base: Term  # L
    behaviors: dict[str, tuple[Term, Term]]  # the terms (F, S) of each behavior
    tokenizer: Any  # the base's tokenizer, with the recipe's chat template
    vocabulary: Tensor  # [V] bool, ids that mean the same token in all models
    # [V] bool, ids whose probability comes from the small models alone, or None if there are none
    unscaled: Tensor | None
    end_ids: frozenset[int]  # ids of tokens that end an answer
    window: int  # context window of the family, the smallest of all models
    weight_bytes: int  # size of all weights in bytes; shared tensors count once
    sizes: tuple[int, ...]  # size of each model's weights in bytes; a forward pass reads all of them
    leader: Leader | None

    @property
    def prompt_names(self) -> set[str]:
        """Names of the prompts that a request may have."""
        terms = [self.base, *(term for pair in self.behaviors.values() for term in pair)]
        return {"", *(term.prompt_name for term in terms)}

    def close(self) -> None:
        """Free the weights, and stop the other ranks of a tensor-parallel base."""
        if self.leader:
            self.leader.close()
        for model in self.models:
            model.close()

    def role(self, term: Term) -> str:
        """What a term is in the recipe, in words, with the source of its weights."""
        source = self.models[term.model].name
        if term.weights == self.base.weights:
            return f"the base {source!r}"
        tuned = [name for name, (f, _) in self.behaviors.items() if term.weights == f.weights]
        if tuned:
            weights = f"an adapter of {source!r}" if term.variant else repr(source)
            return f"the tuned model of {quoted_names(tuned)} ({weights})"
        return f"the reference {source!r}"

    def bytes_read(self, terms: Iterable[Term]) -> int:
        """Size in bytes of the weights that one pass over `terms` reads. Each model is read once."""
        return sum(self.sizes[model] for model in {term.model for term in terms})


def token_mask(ids: Iterable[int], size: int) -> Tensor:
    """[size] bool, True at `ids`."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[[i for i in ids if i < size]] = True
    return mask
