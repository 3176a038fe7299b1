"""One request inside the engine: its prompts, its answer so far, and the text that it has produced."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_eft.engine.decoding.answer_text import AnswerText
from langchain_eft.engine.decoding.formula import Formula
from langchain_eft.engine.decoding.grammar import Grammar
from langchain_eft.engine.errors import RequestError
from langchain_eft.engine.events import Event, Finished, FinishReason, TextDelta
from langchain_eft.engine.models.family import Term
from langchain_eft.engine.request import Generation, GenerationRequest
from langchain_eft.engine.scheduling.draft import RowOutcome
from langchain_eft.engine.scheduling.draft_length import AcceptanceRates
from langchain_eft.engine.scheduling.prompt_lookup import PromptLookup
from langchain_eft.engine.scheduling.prompt_state import PromptState


class RequestState:
    """A request inside the engine.

    Its terms read one prompt or several. The same answer grows behind all of them.

    Attributes:
        generation: What the caller submitted.
        request: The request itself.
        formula: The mixture as coefficients of terms.
        tokens: Main prompt and answer so far.
        prompts: What the terms read, by the terms' names for it.
        num_prompt_tokens: Length of the main prompt.
        cached_tokens: Prompt tokens that the prefix cache held, by prompt; None before admission.
        lookup: Index of the text, for prompt lookup.
        rates: Acceptance rate of each draft source.
        grammar: What the answer must look like, or None.
        finished: Why the answer has ended, or None.

    Raises:
        RequestError: The grammar forbids the `answer_prefix`, or the answer ends within it.
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
        self.request: GenerationRequest = generation.request
        self.formula = formula
        self.tokens = list(self.request.prompt_ids)
        self.num_prompt_tokens = len(self.tokens)
        self.prompts = _prompt_states(formula, {**self.request.contexts, "": self.request.prompt_ids})
        self.cached_tokens: dict[str, int] | None = None
        self.lookup = PromptLookup()
        self.rates = rates
        self.grammar = grammar
        self.finished: FinishReason | None = None
        self._end_ids = end_ids
        self._text = AnswerText(tokenizer, self.request.visible_tokens, self.request.stop)
        self._first_token: float | None = None
        self._events: list[Event] = []
        self._drafted = self._accepted = self._passes = 0
        if self.request.answer_prefix:
            self._begin(self.request.answer_prefix)

    @property
    def ended(self) -> bool:
        """Whether the request is finished or cancelled."""
        return self.finished is not None or self.generation.cancelled

    @property
    def num_output_tokens(self) -> int:
        """Tokens of the answer so far, which is also the number of the next one."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens of all prompts that are not in KV memory yet; at least one each until finished."""
        return sum(prompt.num_uncomputed_tokens for prompt in self.prompts.values())

    @property
    def decoding(self) -> bool:
        """Whether only the last token of every prompt is uncomputed."""
        return all(prompt.num_uncomputed_tokens == 1 for prompt in self.prompts.values())

    @property
    def remaining_tokens(self) -> int:
        """Tokens that the answer may still have."""
        return self.request.max_tokens - self.num_output_tokens

    def ends_with(self, token: int) -> bool:
        """Whether a token ends the answer."""
        return token in self._end_ids

    @property
    def draws_depend_on_tokens(self) -> bool:
        """Whether the host has to know the tokens before the next one, to draw it or to trace them."""
        return self.grammar is not None or self.request.sampling.has_penalties or self.request.trace

    def accept(self, outcome: RowOutcome) -> int:
        """Append a round's tokens, and finish where one of them ends the answer.

        Args:
            outcome: What the round has drawn.

        Returns:
            How many of the tokens the answer has taken.
        """
        self._first_token = self._first_token or time.perf_counter()
        self._drafted += len(outcome.draft_tokens)
        self._accepted += outcome.num_accepted
        self._passes += 1
        before = len(self.tokens)
        text, pieces = self._extend(outcome.tokens)
        for prompt in self.prompts.values():
            prompt.num_computed_tokens = min(prompt.num_computed_tokens, len(prompt.tokens) - 1)
        taken = tuple(self.tokens[before:])
        delta = TextDelta(
            text,
            taken,
            pieces,
            logprobs=tuple(outcome.logprobs[: len(taken)]),
            traces=tuple(outcome.traces[: len(taken)]),
            cut=self._text.cut,
        )
        self._events.append(delta)
        if self.finished:
            self._events.append(self._summary(self.finished))
        return len(taken)

    def deliver(self) -> None:
        """Hand the caller what has happened since the last time, unless the request was cancelled."""
        for event in self._events:
            if not self.generation.cancelled:
                self.generation.deliver(event)
        self._events.clear()

    def _begin(self, prefix: Sequence[int]) -> None:
        """Append the tokens that the caller gives as the beginning of the answer.

        Raises:
            RequestError: The grammar forbids one of them, or the answer ends with one.
        """
        allowed = self.grammar.count_allowed(prefix) if self.grammar else len(prefix)
        text, pieces = self._extend(prefix[:allowed])
        if self.finished:
            reason, remedy = self._why_nothing_follows()
            raise RequestError(
                f"Nothing can follow {_place(prefix, len(pieces))}, for {reason}: leave it and what comes "
                f"after it out{remedy}."
            )
        if allowed < len(prefix):
            raise RequestError(
                f"The grammar forbids {_place(prefix, allowed + 1)}: leave it and what comes after it out, "
                "or change tools, schema or grammar."
            )
        self._events.append(TextDelta(text, tuple(prefix), pieces))

    def _why_nothing_follows(self) -> tuple[str, str]:
        """Why the answer has ended with its last token, and what else than leaving it out would help."""
        if self.finished == "length":
            return f"max_tokens={self.request.max_tokens} is reached", ", or raise max_tokens"
        if self.ends_with(self.tokens[-1]):
            return "it ends an answer", ""
        if self._text.stopped:
            return "it completes a stop string", ", or change `stop`"
        return "the grammar allows nothing behind it", ""

    def _extend(self, tokens: Sequence[int]) -> tuple[str, tuple[str, ...]]:
        """Append tokens up to the one that ends the answer.

        Returns:
            The text that can be shown now, and the text of each token.
        """
        pieces, text = [], ""
        for token in tokens:
            piece, released = self._append(token)
            pieces.append(piece)
            text += released
            if self.finished:
                break
        return text, tuple(pieces)

    def _append(self, token: int) -> tuple[str, str]:
        """Append a token. Returns its text, and the text that can be shown now."""
        self.tokens.append(token)
        for prompt in self.prompts.values():
            prompt.tokens.append(token)
        if self.grammar:
            self.grammar.consume(token)
        at_end = self.ends_with(token)
        piece, released = self._text.feed(token, ends=at_end)
        if at_end or self._text.stopped or (self.grammar and self.grammar.complete):
            self.finished = "stop"
        elif not self.remaining_tokens:
            self.finished = "length"
        if self.finished:
            rest = self._text.flush()
            self.finished = "stop" if self._text.stopped else self.finished
            piece, released = piece + rest.piece, released + rest.released
        return piece, released

    def _summary(self, reason: FinishReason) -> Finished:
        now, submitted = time.perf_counter(), self.generation.submitted
        given = len(self.request.answer_prefix)
        return Finished(
            reason=reason,
            prompt_tokens=self.num_prompt_tokens + given,
            context_tokens={
                name: prompt.num_prompt_tokens + given for name, prompt in self.prompts.items() if name
            },
            completion_tokens=self.num_output_tokens - given,
            cached_tokens=(self.cached_tokens or {}).get("", 0),
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
            verify_passes=self._passes,
            time_to_first_token=(self._first_token or now) - submitted,
            seconds=now - submitted,
        )


def _prompt_states(formula: Formula[Term], prompts: Mapping[str, Sequence[int]]) -> dict[str, PromptState]:
    """One for every prompt that some term reads."""
    names = dict.fromkeys(term.prompt_name for term in formula.terms)
    return {
        name: PromptState(prompts[name], [term for term in formula.terms if term.prompt_name == name])
        for name in names
    }


def _place(prefix: Sequence[int], number: int) -> str:
    """What an error calls a token of an `answer_prefix`.

    Args:
        prefix: All of its tokens.
        number: Which of them; 1 is the first.
    """
    return f"token {number} of {len(prefix)} in `answer_prefix`, id {prefix[number - 1]}"
