"""One running request: its contexts, its answer, and the text that it has shown so far."""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from typing import Any

from langchain_eft.engine.decoding.detokenizer import Detokenizer, StopMatcher
from langchain_eft.engine.decoding.formula import Formula
from langchain_eft.engine.decoding.grammar import Grammar
from langchain_eft.engine.decoding.sampling import SamplingRow
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.request import (
    Event,
    Finished,
    FinishReason,
    Generation,
    TextDelta,
    TokenLogprobs,
)
from langchain_eft.engine.scheduling.draft_length import AcceptanceRates
from langchain_eft.engine.scheduling.prompt_lookup import PromptLookup
from langchain_eft.engine.scheduling.prompt_state import Context
from langchain_eft.engine.token_trace import TokenTrace


class Sequence:
    """A request inside the engine.

    Its terms read one context or several; the same answer grows in all of them.

    Attributes:
        generation: What the caller submitted.
        formula: The mixture as coefficients of terms.
        tokens: Main prompt and answer so far.
        contexts: What the terms read, by the terms' names for it.
        cached_tokens: Tokens of the prompts that were in KV memory from the start; None before admission.
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
        self.contexts = _contexts(formula, {**generation.request.contexts, "": generation.request.prompt_ids})
        self.cached_tokens: dict[str, int] | None = None
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

    @property
    def written(self) -> int:
        """Tokens of the answer so far, which is also the number of the next one."""
        return len(self.tokens) - self._prompt_tokens

    @property
    def pending(self) -> int:
        """Tokens of all contexts that are known but not yet computed; at least one each until finished."""
        return sum(context.pending for context in self.contexts.values())

    @property
    def decoding(self) -> bool:
        """Whether all that is pending is the last token."""
        return all(context.pending == 1 for context in self.contexts.values())

    @property
    def room(self) -> int:
        """Tokens that the answer may still have."""
        return self.generation.request.max_tokens - self.written

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

    def foreseeable(self, tokens: int) -> bool:
        """Whether nothing but the next `tokens` tokens themselves decides how they are drawn.

        A grammar, penalties and changing weights depend on which tokens were written, or on how many.
        """
        numbers = range(self.written, self.written + tokens)
        return (
            self.grammar is None
            and not self.generation.request.sampling.reshapes
            and len({id(self.formula.at(number)) for number in numbers}) == 1
        )

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
        pieces: list[str] = []
        for token in tokens:
            piece, shown = self._append(token)
            pieces.append(piece)
            text += shown
            if self.finished:
                break
        for context in self.contexts.values():
            context.computed = min(context.computed, len(context.tokens) - 1)
        taken = tuple(self.tokens[before:])
        delta = TextDelta(
            text,
            taken,
            tuple(pieces),
            logprobs=tuple(logprobs[: len(taken)]),
            traces=tuple(traces[: len(taken)]),
            cut=self._stops.cut,
        )
        self._events.append(delta)
        if self.finished:
            self._events.append(self._summary(self.finished))
        return len(self.tokens) - before

    def deliver(self) -> None:
        """Hand over what has happened since the last time, unless nobody wants it any more."""
        for event in self._events:
            if not self.generation.cancelled:
                self.generation.deliver(event)
        self._events.clear()

    def _append(self, token: int) -> tuple[str, str]:
        """Append a token. Returns its text, and the text that can be shown now."""
        self.tokens.append(token)
        for context in self.contexts.values():
            context.tokens.append(token)
        if self.grammar:
            self.grammar.consume(token)
        ended = self.ends(token)
        piece = "" if ended else self._detokenizer.feed([token])
        shown = self._stops.feed(piece)
        if ended or self._stops.stopped or (self.grammar and self.grammar.complete):
            self.finished = "stop"
        elif not self.room:
            self.finished = "length"
        if self.finished and not self._stops.stopped:
            rest = self._detokenizer.flush()
            piece += rest
            shown += self._stops.feed(rest)
            self.finished = "stop" if self._stops.stopped else self.finished
            shown += self._stops.flush()
        return piece, shown

    def _summary(self, reason: FinishReason) -> Finished:
        now, submitted = time.perf_counter(), self.generation.submitted
        return Finished(
            reason=reason,
            prompt_tokens=self._prompt_tokens,
            context_tokens={name: context.prompt_tokens for name, context in self.contexts.items() if name},
            completion_tokens=self.written,
            cached_tokens=(self.cached_tokens or {}).get("", 0),
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
            verify_passes=self._passes,
            time_to_first_token=(self._first_token or now) - submitted,
            seconds=now - submitted,
        )


def _contexts(formula: Formula[Term], prompts: Mapping[str, Tokens[int]]) -> dict[str, Context]:
    """A context for every prompt that some term reads."""
    names = dict.fromkeys(term.context for term in formula.terms)
    return {
        name: Context(prompts[name], [term for term in formula.terms if term.context == name])
        for name in names
    }
