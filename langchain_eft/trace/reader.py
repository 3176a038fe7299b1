"""What the engine traced, read from the metadata of an answer: the inverse of `TraceWriter`."""

from __future__ import annotations

from langchain_eft.engine.token_trace import BehaviorTrace, Shift, TokenTrace
from langchain_eft.trace.tokens import Change, TracedToken


def read_trace(token: TracedToken) -> TokenTrace:
    """The engine's trace of a token.

    Args:
        token: One entry of `{"trace": [...]}`.
    """
    return TokenTrace(
        logprob=token.logprob,
        base=token.base,
        small=token.small,
        from_base=_shift(token.from_base),
        from_small=None if token.from_small is None else _shift(token.from_small),
        behaviors={
            name: BehaviorTrace(
                weight=part.weight,
                tuned=part.tuned,
                reference=part.reference,
                shift=_shift(part),
                opened=part.opened,
            )
            for name, part in token.behaviors.items()
        },
    )


def _shift(change: Change) -> Shift:
    return Shift(
        total_variation=change.total_variation,
        up=(change.up.id, change.up.change),
        down=(change.down.id, change.down.change),
    )
