"""What a client knows of a model on a server: all that rendering and reading need, and no weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from langchain_eft.engine.capacity import Capacity
from langchain_eft.engine.recipe.behaviors import Recipe
from langchain_eft.engine.recipe.mixture import Mixture


@dataclass(frozen=True)
class RemoteModel:
    """A model on a server.

    Attributes:
        id: The server's name of it.
        name: How the caller names it, which may be the server's name of a mixture.
        recipe: Names of its weights, and its behaviors.
        mixture: The mixture of requests that name none.
        tokenizer: Its tokenizer, with the chat template.
        end_ids: Ids that end an answer.
        capacity: How many tokens prompts and answers may have.
    """

    id: str
    name: str
    recipe: Recipe
    mixture: Mixture
    tokenizer: Any
    end_ids: frozenset[int]
    capacity: Capacity

    @cached_property
    def num_ids(self) -> int:
        """Ids of tokens are smaller."""
        return 1 + int(max(self.tokenizer.get_vocab().values()))
