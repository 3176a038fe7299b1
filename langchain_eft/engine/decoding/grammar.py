"""Grammar-enforced output by llguidance: the tokens that may follow an answer and its draft tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, grammar_from
from llguidance.hf import from_tokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from torch import Tensor

from langchain_eft.engine.decoding.lark_limits import may_look_ahead
from langchain_eft.engine.error_text import shown
from langchain_eft.engine.errors import RequestError

Bits = npt.NDArray[np.int32]
"""A set of tokens: a bit for each, [V / 32] rounded up."""

_NO_LOOKAHEAD = '%llguidance {"no_forcing": true}\n'
"""Text without a choice is then drawn token by token, as any other text."""

_LIMITS = LLParserLimits(verbose_errors=False)
"""llguidance's own limits of a step are on; an error does not repeat the whole grammar."""


class Grammars:
    """Compiles grammars for one vocabulary.

    Args:
        tokenizer: The recipe's transformers tokenizer.
        size: Number of token ids that models give logits for.
        end_ids: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, size: int, end_ids: Collection[int]) -> None:
        ends = np.zeros(-(-size // 32) * 32, dtype=np.uint8)
        ends[sorted(end_ids)] = 1
        self._ends, self._size = np.packbits(ends, bitorder="little").view(np.int32), size
        self._tokenizer: LLTokenizer = from_tokenizer(tokenizer, n_vocab=size, eos_token=sorted(end_ids))

    def compile(self, grammar: str) -> Grammar:
        """A fresh matcher of a Lark grammar in llguidance's dialect.

        Raises:
            RequestError: The grammar does not compile, or exceeds the limits of `grammar_limits`.
        """
        try:
            options = "" if may_look_ahead(grammar) else _NO_LOOKAHEAD
        except RequestError as error:
            raise RequestError(f"The grammar {shown(grammar)} cannot be enforced. {error}") from error
        compiled = grammar_from("lark", options + grammar)
        matcher = LLMatcher(self._tokenizer, compiled, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise RequestError(f"The grammar {shown(grammar)} does not compile: {matcher.get_error()[:1000]}")
        return Grammar(matcher, self._size, self._ends)


class Grammar:
    """The state of one answer in its grammar.

    Args:
        matcher: A matcher at the start of the grammar.
        size: V, the number of token ids.
        ends: The tokens that end an answer, as `bits`.
    """

    def __init__(self, matcher: LLMatcher, size: int, ends: Bits) -> None:
        self._matcher = matcher
        self._size = size
        self._ends = ends
        self._bits: dict[tuple[int, ...], Bits] = {}

    @property
    def complete(self) -> bool:
        """Whether no token can follow but one that ends the answer."""
        stopped: bool = self._matcher.is_stopped()
        return stopped

    def mask(self, draft_tokens: Sequence[int] = ()) -> Tensor:
        """`bits` as [V] bool."""
        bits = np.unpackbits(self.bits(draft_tokens).view(np.uint8), bitorder="little")
        return torch.from_numpy(bits[: self._size]) > 0

    def bits(self, draft_tokens: Sequence[int] = ()) -> Bits:
        """The tokens that may follow the answer so far and `draft_tokens`: a bit for each, the lowest first.

        After a draft token that the grammar does not allow, all tokens may follow: none of them can be
        accepted.

        Raises:
            RequestError: The answer needs more than the limits of the compiled grammar allow.
        """
        key = tuple(draft_tokens)
        if key not in self._bits:
            num_consumed = self._matcher.try_consume_tokens(list(key))
            if num_consumed < len(key):
                self._bits[key] = np.full_like(self._ends, -1)
            else:
                self._bits[key] = self._ends if self.complete else self._fill()
            self._refuse_errors()
            self._matcher.rollback(num_consumed)
        return self._bits[key]

    def forced(self) -> list[int]:
        """The tokens that must come next. They are draft tokens that are always accepted."""
        forced: list[int] = self._matcher.compute_ff_tokens()
        return forced

    def count_allowed(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, from the first on, may follow the answer so far."""
        allowed: int = self._matcher.validate_tokens(list(tokens))
        return allowed

    def consume(self, token: int) -> None:
        """Advance by one token of the answer.

        Raises:
            RequestError: As `bits`.
        """
        self._matcher.consume_token(token)
        self._bits.clear()
        self._refuse_errors()

    def _refuse_errors(self) -> None:
        # A matcher that has failed calls itself stopped, as if the answer were complete.
        if self._matcher.is_error():
            reason = self._matcher.get_error().partition("\n")[0]
            raise RequestError(f"The grammar cannot follow the answer ({reason}): give a simpler schema.")

    def _fill(self) -> Bits:
        filled = allocate_token_bitmask(1, self._size)
        fill_next_token_bitmask(self._matcher, filled, 0)
        bits: Bits = filled[0]
        return bits
