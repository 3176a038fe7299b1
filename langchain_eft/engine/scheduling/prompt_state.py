"""A text that some of a request's terms read: a prompt of their own, then the answer that all share."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Tokens

from langchain_eft.engine.models.family import Term
from langchain_eft.engine.scheduling.block_manager import block_key


class Context:
    """One of a sequence's texts, with its own positions and its own blocks of KV memory.

    `computed` counts the tokens whose keys and values are in memory; prefill, decoding and recomputation
    after preemption are all the same thing: computed catches up with the tokens.

    Attributes:
        prompt_tokens: Length of the prompt.
        tokens: Prompt and answer so far.
        block_table: Blocks that hold the computed tokens.
        computed: Tokens in KV memory.
        remembered: Blocks that later requests may take over.

    Args:
        prompt: Token ids before the answer, at least one.
        terms: The terms that read this text.
    """

    def __init__(self, prompt: Tokens[int], terms: Iterable[Term]) -> None:
        self.tokens = list(prompt)
        self.block_table: list[int] = []
        self.computed = 0
        self.remembered = 0
        self.prompt_tokens = len(prompt)
        self._block_keys: list[bytes] = []
        # Keys and values depend on the tokens and on which variants of which models have seen them.
        self._salt = repr(sorted({(term.model, term.variant) for term in terms})).encode()

    @property
    def pending(self) -> int:
        """Tokens that are known but not yet computed; at least one until finished."""
        return len(self.tokens) - self.computed

    def before(self, position: int) -> int:
        """Index of the token before the answer's token number `position`: its logits foretell that one."""
        return self.prompt_tokens + position - 1

    def number(self, index: int) -> int:
        """Number, within the answer, of the token that the logits at `index` foretell."""
        return index + 1 - self.prompt_tokens

    def block_keys(self, tokens: int, block_size: int) -> list[bytes]:
        """Keys of the full blocks among the first `tokens` known tokens."""
        full = tokens // block_size
        for start in range(len(self._block_keys) * block_size, full * block_size, block_size):
            previous = self._block_keys[-1] if self._block_keys else self._salt
            self._block_keys.append(block_key(previous, self.tokens[start : start + block_size]))
        return self._block_keys[:full]
