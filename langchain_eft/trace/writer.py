"""A trace written while the answer is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from langchain_eft.engine.decoding.detokenizer import Detokenizer
from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.request import GenerationRequest
from langchain_eft.engine.token_trace import Shift, TokenTrace

if TYPE_CHECKING:
    pass
from langchain_eft.trace.tokens import Alternative, Change, Contribution, TracedToken


class TraceWriter:
    """Writes the engine's traces of one answer as metadata.

    Args:
        tokenizer: For the texts of tokens.
        request: What is being answered.
    """

    def __init__(self, tokenizer: Any, request: GenerationRequest) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, request.visible_tokens)

    def feed(self, event: TextDelta) -> dict[str, list[dict[str, Any]]]:
        """`{"trace": [...]}` with one entry for each of the event's tokens; empty if they are not traced."""
        entries = [entry.model_dump() for entry in self._entries(event)]
        return {"trace": entries} if entries else {}

    def _entries(self, event: TextDelta) -> Iterator[TracedToken]:
        for token, trace in zip(event.tokens, event.traces, strict=False):
            yield self._entry(token, trace)

    def _entry(self, token: int, trace: TokenTrace) -> TracedToken:
        return TracedToken(
            id=token,
            token=self._decode(token),
            text=self._detokenizer.feed([token]),
            logprob=trace.logprob,
            base=trace.base,
            small=trace.small,
            from_base=Change(**self._change(trace.from_base)),
            from_small=None if trace.from_small is None else Change(**self._change(trace.from_small)),
            behaviors={
                name: Contribution(
                    weight=part.weight,
                    tuned=part.tuned,
                    reference=part.reference,
                    contribution=part.weight * (part.tuned - part.reference),
                    **self._change(part.shift),
                )
                for name, part in trace.behaviors.items()
            },
            cut=trace.cut,
        )

    def _change(self, shift: Shift) -> dict[str, Any]:
        (up, raised), (down, lowered) = shift.up, shift.down
        return {
            "total_variation": shift.total_variation,
            "up": Alternative(token=self._decode(up), change=raised),
            "down": Alternative(token=self._decode(down), change=lowered),
        }

    def _decode(self, token: int) -> str:
        text: str = self._tokenizer.decode([token])
        return text
