"""How many tokens prompts and answers may have: the context window, and the KV memory."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from langchain_eft.engine.errors import ContextWindowError
from langchain_eft.engine.recipe.frozen import FrozenModel


class Capacity(FrozenModel):
    """What limits the length of a request."""

    max_model_len: int = Field(ge=1)
    """Tokens of one prompt and its answer by the models' windows, or by the engine's settings."""

    num_blocks: int = Field(ge=1)
    """Blocks of KV memory."""

    block_size: int = Field(ge=1)
    """Token positions per block."""

    @property
    def window(self) -> int:
        """Tokens that one prompt and its answer may have together."""
        return min(self.max_model_len, self.num_blocks * self.block_size)

    def max_output_tokens(self, *prompt_lengths: int) -> int:
        """Tokens that an answer may have; negative where its prompts alone do not fit.

        Args:
            prompt_lengths: Length of the prompt, or of each prompt where the mixture compares several.
        """
        count, size = len(prompt_lengths), self.block_size
        # Every block table but one may leave all but one position of a block empty.
        memory = self.num_blocks * size - (count - 1) * (size - 1) - sum(prompt_lengths)
        return min(self.max_model_len - max(prompt_lengths), memory // count)

    def check(self, prompt_lengths: Sequence[int], given: int, max_tokens: int) -> None:
        """Refuse a request that does not fit.

        Args:
            prompt_lengths: Length of each prompt.
            given: Tokens of the answer that the caller gives.
            max_tokens: Longest answer, with those tokens.

        Raises:
            ContextWindowError: Prompt and answer do not fit.
        """
        longest, limit = max(prompt_lengths), self.max_output_tokens(*prompt_lengths)
        if given and given >= limit:
            raise ContextWindowError.of(longest + given, 1, longest + limit)
        if max_tokens > limit:
            raise ContextWindowError.of(longest, max_tokens, longest + limit)
