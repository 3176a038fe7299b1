"""One running request: its tokens, its blocks, and the text that it has shown so far."""

from __future__ import annotations

import time
from collections.abc import Sequence as Tokens
from dataclasses import replace
from typing import Any

from langchain_eft.engine.detokenizer import Detokenizer, StopMatcher
from langchain_eft.engine.draft_length import AcceptanceRates
from langchain_eft.engine.formula import Formula
from langchain_eft.engine.grammar import Grammar
from langchain_eft.engine.kv_cache import block_key
from langchain_eft.engine.models import Term
from langchain_eft.engine.prompt_lookup import PromptLookup
from langchain_eft.engine.request import (
    Event,
    Finished,
    FinishReason,
    Generation,
    TextDelta,
    TokenLogprobs,
)
from langchain_eft.engine.sampling import SamplingRow
from langchain_eft.engine.trace import TokenTrace


class Sequence:
    """A request inside the engine.

    `computed` counts the tokens whose keys and values are in memory; prefill, decoding and recomputation
    after preemption are all the same thing: computed catches up with the tokens.

    Attributes:
        generation: What the caller submitted.
        formula: The mixture as coefficients of terms.
        tokens: Prompt and answer so far.
        block_table: Blocks that hold the computed tokens.
        computed: Tokens in KV memory.
        remembered: Blocks that later requests may take over.
        cached_tokens: Tokens of the prompt that were in KV memory from the start; None before admission.
        lookup: Where the text has said the same before.
        rates: How well each source of drafts has done.
        grammar: What the answer must look like, or None.
        finished: Set with the last event.
    """

    def __init__(
        self,
        generation: Generation,
        formula: Formula[Term],
        tokenizer: Any,
        end_ids: frozenset[int],
        rates: AcceptanceRates,
        grammar: Grammar | None = None,
    ) -> None:
        self.generation = generation
        self.formula = formula
        self.tokens = list(generation.request.prompt_ids)
        self.block_table: list[int] = []
        self.computed = 0
        self.remembered = 0
        self.cached_tokens: int | None = None
        self.lookup = PromptLookup()
        self.rates = rates
        self.grammar = grammar
        self.finished: FinishReason | None = None
        self._end_ids = end_ids
        self._detokenizer = Detokenizer(tokenizer, generation.request.visible_tokens)
        self._stops = StopMatcher(generation.request.stop)
        self._first_token: float | None = None
        self._events: list[Event] = []
        self._drafted = self._accepted = self._passes = 0
        self._block_keys: list[bytes] = []
        # Keys and values depend on the tokens and on which variants of which models have seen them.
        self._salt = repr(sorted({(t.model, t.variant) for t in formula.terms})).encode()

    @property
    def pending(self) -> int:
        """Tokens that are known but not yet computed; at least one until finished."""
        return len(self.tokens) - self.computed

    @property
    def room(self) -> int:
        """Tokens that the answer may still have."""
        return self.generation.request.max_tokens - (len(self.tokens) - self._prompt_tokens)

    @property
    def _prompt_tokens(self) -> int:
        return len(self.generation.request.prompt_ids)

    def sampling(self, guesses: Tokens[int] = ()) -> SamplingRow:
        """What the sampler needs to know of the position after `guesses`."""
        request = self.generation.request
        output = [*self.tokens[self._prompt_tokens :], *guesses]
        return SamplingRow(request.sampling, request.prompt_ids, output)

    def ends(self, token: int) -> bool:
        """Whether a token ends the answer."""
        return token in self._end_ids

    def block_keys(self, tokens: int, block_size: int) -> list[bytes]:
        """Keys of the full blocks among the first `tokens` known tokens."""
        full = tokens // block_size
        for start in range(len(self._block_keys) * block_size, full * block_size, block_size):
            previous = self._block_keys[-1] if self._block_keys else self._salt
            self._block_keys.append(block_key(previous, self.tokens[start : start + block_size]))
        return self._block_keys[:full]

    def accept(
        self,
        tokens: Tokens[int],
        drafted: int,
        logprobs: Tokens[TokenLogprobs] = (),
        traces: Tokens[TokenTrace] = (),
    ) -> int:
        """Append a round's tokens, and finish where one ends the answer.

        Args:
            tokens: Accepted guesses and the token after them.
            drafted: How many guesses were made.
            logprobs: One for each token, if the request asks for them.
            traces: The same.

        Returns:
            How many of the tokens the answer has taken.
        """
        self._first_token = self._first_token or time.perf_counter()
        self._drafted += drafted
        self._accepted += len(tokens) - 1
        self._passes += 1
        before, text = len(self.tokens), ""
        for token in tokens:
            text += self._append(token)
            if self.finished:
                break
        self.computed = min(self.computed, len(self.tokens) - 1)
        taken = tuple(self.tokens[before:])
        seen = self._cut(traces[: len(taken)])
        self._events.append(TextDelta(text, taken, tuple(logprobs[: len(taken)]), seen))
        if self.finished:
            self._events.append(self._summary(self.finished))
        return len(self.tokens) - before

    def deliver(self) -> None:
        """Hand over what has happened since the last time, unless nobody wants it any more."""
        for event in self._events:
            if not self.generation.cancelled:
                self.generation.deliver(event)
        self._events.clear()

    def _cut(self, traces: Tokens[TokenTrace]) -> tuple[TokenTrace, ...]:
        """Let the last trace say what a stop string has taken away."""
        if traces and self._stops.cut:
            traces = [*traces[:-1], replace(traces[-1], cut=self._stops.cut)]
        return tuple(traces)

    def _append(self, token: int) -> str:
        self.tokens.append(token)
        if self.grammar:
            self.grammar.consume(token)
        ended = self.ends(token)
        text = "" if ended else self._stops.feed(self._detokenizer.feed([token]))
        if ended or self._stops.stopped or (self.grammar and self.grammar.complete):
            self.finished = "stop"
        elif not self.room:
            self.finished = "length"
        if self.finished and not self._stops.stopped:
            text += self._stops.feed(self._detokenizer.flush())
            self.finished = "stop" if self._stops.stopped else self.finished
            text += self._stops.flush()
        return text

    def _summary(self, reason: FinishReason) -> Finished:
        now, submitted = time.perf_counter(), self.generation.submitted
        return Finished(
            reason=reason,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self.tokens) - self._prompt_tokens,
            cached_tokens=self.cached_tokens or 0,
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
            verify_passes=self._passes,
            time_to_first_token=(self._first_token or now) - submitted,
            seconds=now - submitted,
        )
