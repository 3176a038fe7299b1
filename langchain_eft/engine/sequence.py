"""One running request: its tokens, its blocks, and the text that it has shown so far."""

from __future__ import annotations

import time
from typing import Any

from langchain_eft.engine.detokenizer import Detokenizer, StopMatcher
from langchain_eft.engine.formula import Formula
from langchain_eft.engine.models import Term
from langchain_eft.engine.request import Event, Finished, FinishReason, Generation, TextDelta
from langchain_eft.engine.sampling import SamplingRow


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
        finished: Set with the last event.
    """

    def __init__(
        self,
        generation: Generation,
        formula: Formula[Term],
        tokenizer: Any,
        end_ids: frozenset[int],
    ) -> None:
        self.generation = generation
        self.formula = formula
        self.tokens = list(generation.request.prompt_ids)
        self.block_table: list[int] = []
        self.computed = 0
        self.finished: FinishReason | None = None
        self._prompt_tokens = len(self.tokens)
        self._end_ids = end_ids
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopMatcher(generation.request.stop)
        self._first_token: float | None = None

    @property
    def pending(self) -> int:
        """Tokens that are known but not yet computed; at least one until finished."""
        return len(self.tokens) - self.computed

    @property
    def sampling(self) -> SamplingRow:
        """What the sampler needs to know."""
        return SamplingRow(
            self.generation.request.sampling,
            self.tokens[: self._prompt_tokens],
            self.tokens[self._prompt_tokens :],
        )

    def accept(self, token: int) -> None:
        """Append a sampled token, deliver the text it completes, and finish where it ends the answer."""
        self._first_token = self._first_token or time.perf_counter()
        self.tokens.append(token)
        ended = token in self._end_ids
        text = "" if ended else self._stops.feed(self._detokenizer.feed([token]))
        full = len(self.tokens) - self._prompt_tokens >= self.generation.request.max_tokens
        if ended or self._stops.stopped:
            self.finished = "stop"
        elif full:
            self.finished = "length"
        if self.finished and not self._stops.stopped:
            text += self._stops.feed(self._detokenizer.flush())
            self.finished = "stop" if self._stops.stopped else self.finished
            text += self._stops.flush()
        self._deliver(text)

    def _deliver(self, text: str) -> None:
        events: list[Event] = [TextDelta(text)] if text else []
        if self.finished:
            events.append(self._summary(self.finished))
        if not self.generation.cancelled:
            for event in events:
                self.generation.deliver(event)

    def _summary(self, reason: FinishReason) -> Finished:
        now, submitted = time.perf_counter(), self.generation.submitted
        return Finished(
            reason=reason,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self.tokens) - self._prompt_tokens,
            time_to_first_token=(self._first_token or now) - submitted,
            seconds=now - submitted,
        )
