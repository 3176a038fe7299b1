"""The trace of one answer, written while the answer is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_eft.engine.events import TextDelta
from langchain_eft.engine.token_trace import Shift, TokenTrace
from langchain_eft.trace.tokens import Alternative, Change, Contribution, TracedToken


class TraceWriter:
    """Writes what the engine traced as metadata of messages and generations.

    Args:
        tokenizer: Decodes single tokens: the traced one and its alternatives.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def write(self, delta: TextDelta) -> dict[str, list[dict[str, Any]]]:
        """`{"trace": [...]}` with one entry for each of the delta's tokens; empty if they are not traced."""
        entries = [entry.model_dump() for entry in self._entries(delta)]
        return {"trace": entries} if entries else {}

    def _entries(self, delta: TextDelta) -> Iterator[TracedToken]:
        last = len(delta.traces) - 1
        for i, trace in enumerate(delta.traces):
            cut = delta.cut if i == last else 0
            yield self._entry(delta.tokens[i], delta.pieces[i], trace, cut)

    def _entry(self, token: int, piece: str, trace: TokenTrace, cut: int) -> TracedToken:
        return TracedToken(
            id=token,
            token=self._decode(token),
            text=piece,
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
                    opened=part.opened,
                    **self._change(part.shift),
                )
                for name, part in trace.behaviors.items()
            },
            cut=cut,
        )

    def _change(self, shift: Shift) -> dict[str, Any]:
        (up, raised), (down, lowered) = shift.up, shift.down
        return {
            "total_variation": shift.total_variation,
            "up": Alternative(id=up, token=self._decode(up), change=raised),
            "down": Alternative(id=down, token=self._decode(down), change=lowered),
        }

    def _decode(self, token: int) -> str:
        text: str = self._tokenizer.decode([token])
        return text
